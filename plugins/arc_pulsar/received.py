"""Received: a message of the library as a delivery of the bus."""

# Properties stand before the fields of the record; they do as fields do, but later.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from arc_bus.transport import Delivery
from arc_pulsar import vendor
from arc_pulsar.stored import StoredEntry

_UNREAD: Final[Mapping[str, str]] = {}
_SLOTS: Final = vars(Delivery)


def _nobody() -> None:
    """Tell nobody of headers that cannot be read."""


class Received(Delivery):
    """A delivery that reads headers, id and key when it is asked for one of them.

    They are most of what a message of the library costs to read, and a handler that takes bytes
    asks for none. Properties are headers; `message_id` among them is the id. Where another
    publisher wrote properties or a key that are not UTF-8, there are none, and `malformed` is
    called: the body may be good all the same.
    """

    message: vendor.Message | None = None
    malformed: Callable[[], None] = _nobody

    @property  # type: ignore[misc]  # stands before the field
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; see `Delivery`."""
        headers: Mapping[str, str] = self._read("headers")
        return headers

    @headers.setter
    def headers(self, headers: Mapping[str, str]) -> None:
        self._write("headers", headers)

    @property  # type: ignore[misc]  # stands before the field
    def id(self) -> str | None:
        """The publisher's message id; see `Delivery`."""
        id: str | None = self._read("id")
        return id

    @id.setter
    def id(self, id: str | None) -> None:
        self._write("id", id)

    @property  # type: ignore[misc]  # stands before the field
    def key(self) -> str | None:
        """The partition key; see `Delivery`."""
        key: str | None = self._read("key")
        return key

    @key.setter
    def key(self, key: str | None) -> None:
        self._write("key", key)

    def _read(self, name: str) -> Any:
        if _SLOTS["headers"].__get__(self) is _UNREAD:
            self._read_all()
        return _SLOTS[name].__get__(self)

    def _write(self, name: str, value: object) -> None:
        self._read(name)
        _SLOTS[name].__set__(self, value)

    def _read_all(self) -> None:
        assert self.message is not None
        key = None
        try:
            headers = self.message.properties()
            key = self.message.partition_key() or None
        except UnicodeDecodeError:
            headers = {}
            self.malformed()
        id = headers.pop("message_id", None)
        names = "".join(headers)
        if names != names.lower():
            headers = {name.lower(): value for name, value in headers.items()}
        for name, value in (("headers", headers), ("id", id), ("key", key)):
            _SLOTS[name].__set__(self, value)


def deliveries_of(
    messages: Sequence[vendor.Message],
    subject: str,
    token: object,
    malformed: Callable[[], None] = _nobody,
) -> list[Delivery]:
    """Return the deliveries of messages of one entry; `token` is what settles them.

    The broker counts redeliveries of the entry: the first message tells for all.
    """
    attempt = messages[0].redelivery_count() + 1
    # By place, as names would cost more than the rest of it.
    return [
        Received(subject, m.data(), _UNREAD, None, None, None, attempt, token, None, m, malformed)
        for m in messages
    ]


def place_of(delivery: Delivery) -> tuple[StoredEntry, vendor.Message]:
    """Return the token and the message of a delivery whose token is what the broker keeps it in."""
    received: Received = delivery  # type: ignore[assignment]  # a cast costs as much as the rest
    return received.token, received.message  # type: ignore[return-value]
