"""Servers: the cluster's addresses, and which one to try next."""

from __future__ import annotations

import random

from arc_bus.errors import ConfigError
from arc_nats.address import Address, Server, server


class Servers:
    """The servers of the URL, and those that they name."""

    def __init__(self, address: Address) -> None:
        """Begin with the servers of the URL."""
        self._shown = address.shown
        # A server that another one names gets our credentials: its certificate must bear the name
        # that the user trusted, not one that INFO says.
        self._tls_name = address.servers[0].tls_name
        self._all = list(address.servers)
        self._round: list[Server] = []

    def every(self) -> list[Server]:
        """Return all of them, in a random order."""
        return random.sample(self._all, len(self._all))

    def next(self) -> Server:
        """Return the one to try next: each once, then each again, in another random order."""
        if not self._round:
            self._round = self.every()
        return self._round.pop()

    def learn(self, urls: tuple[str, ...]) -> None:
        """Add what is new. Raises ConfigError for what is no address, after adding the others."""
        known = {(one.host, one.port) for one in self._all}
        wrong: ConfigError | None = None
        for url in urls:
            try:
                found = server(url, self._shown, self._tls_name)
            except ConfigError as error:
                wrong = error
                continue
            if (found.host, found.port) not in known:
                self._all.append(found)
        if wrong is not None:
            raise wrong
