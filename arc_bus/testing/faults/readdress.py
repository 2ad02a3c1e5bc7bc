"""Readdress: Pulsar's lookup answers, altered so that the client comes back through the proxy.

A Pulsar client asks where a topic is served and connects to the address it is told, past every
proxy. Frames are those of the binary protocol: 4 bytes total size, 4 bytes command size, and a
protobuf `BaseCommand` whose first field is its type
(https://pulsar.apache.org/docs/4.0.x/developing-binary-protocol/).
"""

from __future__ import annotations

from arc_bus.errors import ConfigError

_LOOKUP_RESPONSE = b"\x08\x18"  # field 1, BaseCommand.Type.LOOKUP_RESPONSE = 24


class Readdress:
    """Rewrites what one server says on one connection, frame by frame."""

    def __init__(self, server: tuple[str, int], port: int) -> None:
        """Write 127.0.0.1:`port` for the address `server`, which must be of the same length.

        Protobuf says lengths in front, in several places; equal lengths need none of them changed.
        """
        self._old = f"{server[0]}:{server[1]}".encode()
        self._new = f"127.0.0.1:{port}".encode()
        if len(self._old) != len(self._new):
            raise ConfigError(
                f"a proxy on {self._new.decode()} for Pulsar on {self._old.decode()}: both must be"
                " of one length; let the server listen on 127.0.0.1 and a port of five digits"
            )
        self._rest = b""

    def rewrite(self, data: bytes) -> bytes:
        """Return the whole frames there are now; the beginning of another is kept until it is."""
        data = self._rest + data
        at, passed = 0, list[bytes]()
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            frame = data[at:end]
            if frame[8:10] == _LOOKUP_RESPONSE:
                frame = frame.replace(self._old, self._new)
            passed.append(frame)
            at = end
        self._rest = data[at:]
        return b"".join(passed)
