"""Catalog: the streams of one route, as they were found or made."""

from __future__ import annotations

import msgspec

from arc_bus.errors import ConfigError
from arc_bus.transport import Capabilities, Endpoint, Survives
from arc_nats import consumers, streams
from arc_nats.address import Address
from arc_nats.api import NANOSECONDS, Api, StreamInfo
from arc_nats.options import JetStreamOptions


class Catalog:
    """Which streams there are for what the route's prefixes and the subscriptions ask."""

    def __init__(self, api: Api, address: Address, options: JetStreamOptions) -> None:
        """Know no stream yet."""
        self._api = api
        self._address = address
        self._options = options
        self._infos: dict[str, StreamInfo] = {}

    async def prepare(self, endpoint: Endpoint) -> None:
        """Find, check and where allowed make the streams of the prefixes. Raises ConfigError."""
        asked = self._options.subjects or streams.subjects_of(endpoint.prefixes)
        if self._address.stream:
            await self._ensure(self._address.stream, asked)
            return
        missing: list[str] = []
        for subject in asked:
            found = await self._api.streams_of(subject)
            for name in found:
                await self._ensure(name, ())
            if not found:
                missing.append(subject)
        if missing:
            if not self._options.provision:
                raise ConfigError(
                    f"{self._address.shown}: no stream keeps {', '.join(missing)}; make one by"
                    " arc-bus topology apply, or name one in the route, nats+jetstream://host/STREAM"
                )
            name = consumers.durable_name(endpoint.service, missing[0])
            await self._ensure(name, tuple(missing))

    async def _ensure(self, name: str, asked: tuple[str, ...]) -> None:
        self._infos[name] = await streams.ensure(
            self._api, name, asked, self._options, self._address.shown
        )

    def declared(self, can: Capabilities) -> Capabilities:
        """Return `can` without what one of the streams does not do."""
        window, durable = can.publish_dedup or 0.0, can.durable
        for info in self._infos.values():
            held = info.config.get("duplicate_window")
            window = min(window, held / NANOSECONDS if isinstance(held, int) else 0.0)
            if info.config.get("storage") == "memory":
                durable = durable - {Survives.BROKER_RESTART}
        return msgspec.structs.replace(can, publish_dedup=window or None, durable=durable)

    def keeps(self, pattern: str) -> bool:
        """Whether a stream that we have seen keeps all of `pattern`."""
        return any(
            streams.covers(held, pattern)
            for info in self._infos.values()
            for held in streams.subjects_in(info.config)
        )

    async def stream_of(self, pattern: str) -> str:
        """Return the one stream that keeps `pattern`. Raises ConfigError if there is not one."""
        if self._address.stream:
            return self._address.stream
        found = await self._api.streams_of(pattern)
        if len(found) != 1:
            what = f"several: {', '.join(found)}" if found else "none"
            raise ConfigError(
                f"{self._address.shown}: {pattern!r} needs one stream that keeps it, there is"
                f" {what}; name it in the route, nats+jetstream://host/STREAM"
            )
        return found[0]

    async def retain(self, pattern: str) -> None:
        """Make sure that a stream keeps `pattern`. Raises ConfigError naming the remedy."""
        if not self.keeps(pattern):
            await self._ensure(await self.stream_of(pattern), (pattern,))
