"""Servers: the cluster's addresses, and which one to try next.

Those of the URL stay for ever. Those that a server names are its latest word: in a cluster whose
members change their addresses, as pods do, a client that kept all of them would try more and more
that are gone, at `connect_timeout` each.
"""

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
        self._own = tuple(address.servers)
        self._all = list(self._own)
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
        """Take `urls`, if there are any, in the place of those that were named before.

        Raises ConfigError for what is no address, after taking the others.
        """
        if not urls:  # a server that names none does not know better
            return
        known = {(one.host, one.port) for one in self._own}
        self._all = list(self._own)
        wrong: ConfigError | None = None
        for url in urls:
            try:
                found = server(url, self._shown, self._tls_name)
            except ConfigError as error:
                wrong = error
                continue
            if (found.host, found.port) not in known:
                known.add((found.host, found.port))
                self._all.append(found)
        if wrong is not None:
            raise wrong
