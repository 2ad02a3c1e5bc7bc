"""Mutation: small damage to a good input, where bugs are found more often than in noise."""

from __future__ import annotations

import random
from collections.abc import Sequence

_TELLING = (
    *(b"\r\n", b"\0", b"\x0b", b"\t", b" ", b"\xff", b"\xed\xa0\x80", b"*", b">", b".", b":", b"~"),
    *(b"999999999999999999999", b"-1", b"NATS/1.0", b"MSG ", b"{", b"[", b"[" * 2000, b'"', b"\\u"),
    *(b"nan", b"\x91" * 2000, b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"%", b"@", b"://"),
)


def mutated(dice: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds with one to six changes."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 6)):
        at = dice.randint(0, len(data))
        kind = dice.randrange(6)
        if kind == 0:
            data[at:at] = dice.choice(_TELLING)
        elif kind == 1:
            data[at:at] = dice.randbytes(dice.randint(1, 8))
        elif kind == 2 and data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        elif kind == 3:
            del data[at : at + dice.randint(1, 16)]
        elif kind == 4:
            other = dice.choice(seeds)
            data[at:] = other[dice.randint(0, len(other)) :]
        else:
            data[at:at] = data[dice.randint(0, len(data)) :][: dice.randint(0, 64)]
    return bytes(data)
