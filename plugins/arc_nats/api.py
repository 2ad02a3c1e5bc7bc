"""Api: JetStream's management requests, as JSON over the connection (ADR-1, ADR-31).

nats-py's manager is not used: it needs nats-py's own read path, and its records forget every field
of a stream's configuration that it does not know, which an update would then reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from arc_bus.errors import (
    ArcBusError,
    ConfigError,
    ConnectionLost,
    RequestTimeout,
    TransportError,
    Unsupported,
)
from arc_nats.client import Connection
from arc_nats.headers import status
from arc_nats.inbox import Inbox

NANOSECONDS: Final = 1_000_000_000
STREAM_MISSING: Final = 10059
CONSUMER_MISSING: Final = 10014
MESSAGE_MISSING: Final = 10037
STREAM_EXISTS: Final = 10058
CONSUMER_EXISTS: Final = 10148


class ApiError(msgspec.Struct, frozen=True):
    """The server's own words: an HTTP-like `code`, its exact `err_code`, and a text."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class ApiFailure(ArcBusError):
    """A management request was refused; `error` says why. Never leaves this plugin."""

    def __init__(self, request: str, error: ApiError) -> None:
        """Name the request and the server's answer."""
        super().__init__(f"{request}: {error.description} (JetStream error {error.err_code})")
        self.error = error


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds; sequences count from 1."""

    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream: all of its configuration, whether we know the fields or not, and its state."""

    config: dict[str, object]
    state: StreamState = StreamState()


class Place(msgspec.Struct, frozen=True):
    """A place of a consumer in its stream."""

    stream_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True):
    """A consumer: its configuration, and how many messages it has yet to deliver.

    Up to `ack_floor` nothing is left to settle; of a new consumer that is what it passes over.
    """

    name: str
    config: dict[str, object]
    num_pending: int = 0
    num_ack_pending: int = 0
    ack_floor: Place = Place()


class ConsumerPage(msgspec.Struct, frozen=True):
    """A page of a stream's consumers, None where there are none."""

    total: int
    consumers: list[ConsumerInfo] | None = None


class StreamNames(msgspec.Struct, frozen=True):
    """Names of streams, None where there are none."""

    streams: list[str] | None = None


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as a stream keeps it; JSON has header block and body in base64."""

    subject: str
    seq: int
    data: bytes = b""
    hdrs: bytes = b""


class GotMessage(msgspec.Struct, frozen=True):
    """The answer to a request for one message."""

    message: StoredMessage


class Done(msgspec.Struct, frozen=True):
    """The answer to a request that only succeeds."""

    success: bool = True


class _Refused(msgspec.Struct, frozen=True):
    error: ApiError | None = None


Answer = TypeVar("Answer")


class Api:
    """Asks the JetStream of one connection, in one domain."""

    def __init__(self, connection: Connection, inbox: Inbox, domain: str | None) -> None:
        """Ask under `$JS.API`, or `$JS.<domain>.API`."""
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"
        self._connection = connection
        self._inbox = inbox

    async def ask(
        self, request: str, body: Mapping[str, object] | None, kind: type[Answer]
    ) -> Answer:
        """Return the answer to `request`. Raises ApiFailure, ConfigError, TransportError."""
        options = self._connection.options
        await self._connection.until_connected(options.flush_timeout)
        content = msgspec.json.encode(body) if body is not None else b""
        subject = f"{self.prefix}.{request}"
        denied = self._connection.denials.count
        try:
            frame = await self._inbox.ask(subject.encode(), content, options.flush_timeout)
        except RequestTimeout as error:
            refused = self._connection.denials.since(denied, "publish", subject)
            if refused is not None:
                raise ConfigError(
                    f"{self._connection.address.shown}: {refused}; grant this user the permission"
                ) from error
            raise ConnectionLost(f"{self._connection.address.shown}: {error}") from error
        if status(frame[2]) == "503":
            raise Unsupported(
                f"{self._connection.address.shown} has no JetStream for this account: start"
                " nats-server with -js, or enable it for the account"
            )
        try:
            refusal = msgspec.json.decode(frame[3], type=_Refused).error
            if refusal is None:
                return msgspec.json.decode(frame[3], type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TransportError(
                f"{self._connection.address.shown}: what answered {subject!r} is no JetStream:"
                f" {error}; look who else listens there"
            ) from error
        raise ApiFailure(request, refusal)

    async def stream(self, name: str) -> StreamInfo | None:
        """Return the stream, None if there is none."""
        try:
            return await self.ask(f"STREAM.INFO.{name}", None, StreamInfo)
        except ApiFailure as failure:
            if failure.error.err_code == STREAM_MISSING:
                return None
            raise

    async def consumer(self, stream: str, name: str) -> ConsumerInfo | None:
        """Return the consumer, None if there is none."""
        try:
            return await self.ask(f"CONSUMER.INFO.{stream}.{name}", None, ConsumerInfo)
        except ApiFailure as failure:
            if failure.error.err_code in (CONSUMER_MISSING, STREAM_MISSING):
                return None
            raise

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Return all consumers of the stream."""
        found: list[ConsumerInfo] = []
        while True:
            page = await self.ask(f"CONSUMER.LIST.{stream}", {"offset": len(found)}, ConsumerPage)
            found += page.consumers or []
            if len(found) >= page.total or not page.consumers:
                return found

    async def streams_of(self, subject: str) -> list[str]:
        """Return the names of the streams that keep something of `subject`, a pattern too."""
        found = await self.ask("STREAM.NAMES", {"subject": subject}, StreamNames)
        return sorted(found.streams or [])

    async def message(self, stream: str, sequence: int, pattern: str) -> StoredMessage | None:
        """Return the first message from `sequence` on whose subject matches, None if none does."""
        wanted = {"seq": sequence, "next_by_subj": pattern}
        try:
            return (await self.ask(f"STREAM.MSG.GET.{stream}", wanted, GotMessage)).message
        except ApiFailure as failure:
            if failure.error.err_code == MESSAGE_MISSING:
                return None
            raise
