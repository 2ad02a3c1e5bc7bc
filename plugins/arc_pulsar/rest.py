"""Rest: Pulsar's admin REST API, one request at a time, blocking."""

from __future__ import annotations

import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec

from arc_bus.errors import ConfigError, ConnectFailed
from arc_pulsar.options import PulsarOptions

_TIMEOUT: Final = 5.0
"""Seconds for one question."""

_CHANGING: Final = 30.0
"""Seconds for one change: a new namespace has a system topic to load first."""

_Answer = TypeVar("_Answer")


class Refused(ConnectFailed):
    """The role may not ask that."""


class Rest:
    """Asks and changes at one address, with the token of the options."""

    def __init__(self, url: str, options: PulsarOptions) -> None:
        """Use the API at `url`; nothing is asked yet."""
        self._url = url.rstrip("/")
        self._token = options.admin_token
        # No proxy from the environment: the admin port is inside the cluster.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, kind: type[_Answer]) -> _Answer | None:
        """Return the answer; None where there is none, or no such thing. Raises ConnectFailed."""
        text = self._get(path)
        try:
            return msgspec.json.decode(text, type=kind) if text else None
        except msgspec.DecodeError as error:
            raise self._unusable(error) from error

    def text(self, path: str) -> str:
        """Return an answer that is no JSON as text; empty where there is none."""
        return self._get(path).decode(errors="replace").strip()

    def _get(self, path: str) -> bytes:
        try:
            return self._ask("GET", path, None, _TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND:
                    return b""
                raise self._refused(error, path) or ConnectFailed(
                    f"Pulsar's admin API at {self._url} answers {error.code} to {path}"
                ) from None
        except OSError as error:
            raise self._unusable(error) from error

    def send(self, method: str, path: str, body: object = None) -> None:
        """Make one change. Raises ConfigError with the broker's reason, ConnectFailed.

        That it is so already (409 Conflict to a PUT) is no error: somebody else was quicker.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            self._ask(method, path, content, _CHANGING)
        except urllib.error.HTTPError as error:
            with error:
                if method == "PUT" and error.code == HTTPStatus.CONFLICT:
                    return
                raise self._refused(error, path) or ConfigError(
                    f"Pulsar's admin API at {self._url} answers {error.code} to {method} {path}:"
                    f" {error.read(300).decode(errors='replace')}"
                ) from None
        except OSError as error:
            raise self._unusable(error) from error

    def _ask(self, method: str, path: str, content: bytes | None, timeout: float) -> bytes:
        request = urllib.request.Request(
            f"{self._url}/admin/v2/{path}", data=content, method=method
        )
        request.add_header("Content-Type", "application/json")
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token.reveal()}")
        with self._opener.open(request, timeout=timeout) as answer:
            text: bytes = answer.read()
        return text

    def _refused(self, error: urllib.error.HTTPError, path: str) -> Refused | None:
        if error.code not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return None
        return Refused(
            f"Pulsar's admin API at {self._url} refuses {path} ({error.code}): check admin_token"
        )

    def _unusable(self, error: Exception) -> ConnectFailed:
        return ConnectFailed(
            f"no use of Pulsar's admin API at {self._url}: {error}; check admin_url"
        )


def path_of(topic: str) -> str:
    """Return the part of a path that names `topic`."""
    return topic.replace("://", "/")
