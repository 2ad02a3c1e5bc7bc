"""Contract and Registry: which payload belongs to which destination, and what goes with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias, cast

import msgspec

from arc_bus.errors import ConfigError, EncodeError
from arc_bus.routing import check_pattern, has_wildcard, matches

Key: TypeAlias = str | Callable[[object], str | None]
"""A dotted path into the payload ("conversation.user_id"), or a function of the payload."""

_encode = msgspec.json.Encoder().encode


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said on one destination.

    `destination` is a subject, a topic, or a pattern of either. `payload` is the type that its
    readers decode into: a `msgspec.Struct`, or `dict` for any JSON object. `event_type` is written
    into the envelope; a `*` in it stands for the last part of the concrete destination. Where
    there is more than one, `event_types` lists them and the payload says which in its own field
    `event_type`. `key` gives the partition key, and `schema` is the tag that the payload carries in
    its field `schema`. `partitions` and `retention_days` are what the topic is created with; None
    leaves them to the broker.
    """

    destination: str
    payload: type[object]
    event_type: str | None = None
    event_types: tuple[str, ...] = ()
    key: Key | None = None
    schema: str | None = None
    partitions: int | None = None
    retention_days: float | None = None

    def event_type_of(self, destination: str) -> str | None:
        """Return the event type on `destination`, None where the payload or nobody names it."""
        if self.event_type is None or "*" not in self.event_type:
            return self.event_type
        return self.event_type.replace("*", re.split("[./]", destination)[-1])

    def key_of(self, payload: object) -> str | None:
        """Return the partition key of `payload`; None where the contract asks for none.

        Raises EncodeError when the contract's path leads to no text in this payload.
        """
        if self.key is None:
            return None
        if not isinstance(self.key, str):
            return self.key(payload)
        found = payload
        for name in self.key.split("."):
            found = field_of(found, name)
        if not isinstance(found, str) or not found:
            raise EncodeError(
                f"{self.destination!r} is partitioned by {self.key!r}, and this payload has"
                f" {found!r} there: set the field, or pass key="
            )
        return found

    def check(self, payload: object) -> None:
        """Return when a reader of this contract can decode `payload`; about 1 µs.

        A mapping may be given in place of the declared type, and may say more than it does.
        Raises EncodeError, naming the field and the rule it breaks.
        """
        try:
            # mypy compares the hash of instances here; a class is always hashable.
            _decoder(self.payload).decode(_encode(payload))  # type: ignore[arg-type]
        except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
            raise EncodeError(
                f"{type(payload).__name__} breaks the contract of {self.destination!r}"
                f" ({self.payload.__name__}): {error}"
            ) from error
        if self.schema is not None and field_of(payload, "schema") != self.schema:
            raise EncodeError(
                f"a payload on {self.destination!r} carries the field schema={self.schema!r};"
                f" this one has {field_of(payload, 'schema')!r}"
            )


class Registry:
    """The contracts that one bus knows: the built-in ones and those of its service and plugins.

    A plain object of one bus, filled before the bus starts; there is no global one.
    """

    def __init__(self, contracts: tuple[Contract, ...] = ()) -> None:
        """Register `contracts`, usually `builtin()`."""
        self._exact: dict[str, Contract] = {}
        self._patterns: dict[str, Contract] = {}
        self._payloads: dict[type[object], Contract] = {}
        for contract in contracts:
            self.register(contract)

    def register(self, contract: Contract) -> None:
        """Add `contract`; the same one a second time changes nothing.

        Raises InvalidName for a destination that is none, ConfigError when another contract has
        its destination or its payload type. Only `dict`, which says nothing, may be the payload of
        many.
        """
        check_pattern(contract.destination)
        held = self._patterns if has_wildcard(contract.destination) else self._exact
        typed = contract.payload is not dict
        for other in (held.get(contract.destination), self._payloads.get(contract.payload)):
            if other is not None and other != contract:
                raise ConfigError(
                    f"two contracts clash: {_describe(other)} is registered, and"
                    f" {_describe(contract)} was to be; give it a destination and a payload type"
                    " of its own"
                )
        held[contract.destination] = contract
        if typed:
            self._payloads[contract.payload] = contract

    def for_destination(self, destination: str) -> Contract | None:
        """Return the contract of a concrete destination: the exact one, else that of a pattern."""
        exact = self._exact.get(destination)
        if exact is not None or not self._patterns:
            return exact
        for pattern, contract in self._patterns.items():
            if matches(pattern, destination):
                return contract
        return None

    def for_payload(self, payload: type[object]) -> Contract | None:
        """Return the contract whose payload type is `payload` or one that it inherits from."""
        for base in payload.__mro__:
            if (contract := self._payloads.get(base)) is not None:
                return contract
        return None

    def __iter__(self) -> Iterator[Contract]:
        """Iterate over all contracts: exact destinations first, then patterns, as registered."""
        yield from self._exact.values()
        yield from self._patterns.values()

    def __len__(self) -> int:
        return len(self._exact) + len(self._patterns)


def builtin() -> tuple[Contract, ...]:
    """Return the contracts of the A.R.C. platform, in the order of its tables."""
    # Imported here because the payload types are only worth their import time once a bus is made.
    from arc_bus.contracts import analytics, audit, brain, events, system, tts, voice

    modules = (voice, brain, tts, system, events, analytics, audit)
    return tuple(contract for module in modules for contract in module.CONTRACTS)


def field_of(value: object, name: str) -> object:
    """Return field or key `name` of `value`, None where it has none."""
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).get(name)
    return cast("object", getattr(value, name, None))


def _describe(contract: Contract) -> str:
    return f"{contract.payload.__name__} on {contract.destination!r}"


@lru_cache(maxsize=1024)
def _decoder(payload: type[object]) -> msgspec.json.Decoder[object]:
    return msgspec.json.Decoder(payload)
