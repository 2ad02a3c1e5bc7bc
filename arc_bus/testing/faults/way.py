"""Way: one direction of a proxy, and what is wrong with it."""

from __future__ import annotations

import asyncio

import msgspec

from arc_bus.errors import ConfigError


class Cut(Exception):
    """The connection is to be broken off here, after what `sent` holds."""

    def __init__(self, sent: bytes) -> None:
        super().__init__(f"cut after {len(sent)} bytes")
        self.sent = sent


class _Flip(msgspec.Struct):
    """One bit that is to be turned over, `left` bytes from here."""

    left: int
    mask: int


class Way:
    """What happens to the bytes of one direction, on all connections of the proxy together.

    `delay` (seconds) and `rate` (bytes a second) can be set at any time. Places in the stream are
    counted from the call on. `carried` counts the bytes that were passed on.
    """

    def __init__(self) -> None:
        """Pass everything on as it is."""
        self.delay = 0.0
        self.rate: float | None = None
        self.carried = 0
        self._open = asyncio.Event()
        self._open.set()
        self._cut: int | None = None
        self._flips: list[_Flip] = []

    @property
    def frozen(self) -> bool:
        """Whether nothing is passed on now."""
        return not self._open.is_set()

    def freeze(self) -> None:
        """Pass nothing on and read nothing more: the sender's buffers fill, and nobody is told."""
        self._open.clear()

    def thaw(self) -> None:
        """Undo `freeze`; what was held back goes on, nothing of it is lost."""
        self._open.set()

    def cut_after(self, count: int) -> None:
        """Reset the connection that carries the byte after the next `count`, once."""
        if count < 0:
            raise ConfigError(f"cut_after({count}): a number of bytes, 0 or more")
        self._cut = count

    def flip(self, place: int, bit: int = 0) -> None:
        """Turn over bit number `bit` (0 to 7) of the byte `place` bytes from here, once."""
        if place < 0 or not 0 <= bit <= 7:
            raise ConfigError(f"flip({place}, bit={bit}): a byte from 0, a bit of 0 to 7")
        self._flips.append(_Flip(place, 1 << bit))

    def heal(self) -> None:
        """Be a good way again; what was planned and has not happened will not."""
        self.delay = 0.0
        self.rate = None
        self._cut = None
        self._flips.clear()
        self.thaw()

    async def passable(self) -> None:
        """Return once it is not frozen."""
        await self._open.wait()

    def shape(self, data: bytes) -> bytes:
        """Return what `data` becomes on its way. Raises Cut where it ends here."""
        if self._flips:
            data = self._flipped(data)
        if self._cut is not None:
            if self._cut < len(data):
                sent, self._cut = data[: self._cut], None
                self.carried += len(sent)
                raise Cut(sent)
            self._cut -= len(data)
        self.carried += len(data)
        return data

    def _flipped(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for flip in self._flips:
            if flip.left < len(data):
                changed[flip.left] ^= flip.mask
            flip.left -= len(data)
        self._flips = [flip for flip in self._flips if flip.left >= 0]
        return bytes(changed)
