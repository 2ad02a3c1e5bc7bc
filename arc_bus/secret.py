"""Secret: a password or token that nothing shows; `redact` takes those out of URLs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from arc_bus.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Secret:
    """A password or token: `repr` and `str` say `Secret(***)`, and it cannot be pickled.

    `Secret("text")` holds the text itself; `Secret.env(name)` and `Secret.file(path)` hold where it
    is, and read it at every `reveal()`: at each connect, so that a rotated one needs no restart.
    In a configuration file it is the text, or a table: `{ env = "NAME" }`, `{ file = "path" }`.
    """

    __slots__ = ("_place", "_value")

    def __init__(self, text: str) -> None:
        """Hold `text`. Raises ConfigError where it is empty, which is no secret."""
        if not text:
            raise ConfigError("a secret must not be empty; leave the option out instead")
        self._place, self._value = "", text

    @classmethod
    def env(cls, name: str) -> Secret:
        """Return the secret in the environment variable `name`, read when it is needed."""
        return cls._at("environment variable", name)

    @classmethod
    def file(cls, path: str | Path) -> Secret:
        """Return the secret in the file `path`, without white space round it, read when needed."""
        return cls._at("file", str(path))

    @classmethod
    def _at(cls, place: str, name: str) -> Secret:
        secret = cls(name)
        secret._place = place
        return secret

    def reveal(self) -> str:
        """Return the text, for the line that sends it. Raises ConfigError if it is not there."""
        if not self._place:
            return self._value
        where = f"the secret in {self._place} {self._value!r}"
        try:
            if self._place == "file":
                from pathlib import Path  # here, as it is only needed where there is a file

                text = Path(self._value).read_text(encoding="utf-8").strip()
            else:
                text = os.environ.get(self._value, "")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where} cannot be read: {error}") from error
        if not text:
            raise ConfigError(f"{where} is empty or not there; set it")
        return text

    def __eq__(self, other: object) -> bool:
        """Whether both are made alike, so that routes of equal options share a connection."""
        if not isinstance(other, Secret):
            return NotImplemented
        return (self._place, self._value) == (other._place, other._value)

    def __hash__(self) -> int:
        return hash((self._place, self._value))

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> str:
        """Refuse to be pickled or copied into another process. Raises TypeError."""
        raise TypeError("a Secret is not pickled; pass on where it is: Secret.env or Secret.file")


def as_secret(kind: type, value: object) -> Any:
    """Return what a configuration says of a `Secret`; the `dec_hook` of `msgspec.convert`.

    Values of any other `kind` are left to msgspec's own check. Raises ConfigError for what says
    nothing of a secret, without repeating it.
    """
    if kind is not Secret or isinstance(value, Secret):
        return value
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, Mapping) and len(table := cast("Mapping[str, object]", value)) == 1:
        ((place, name),) = table.items()
        if place in ("env", "file") and isinstance(name, str):
            return Secret.env(name) if place == "env" else Secret.file(name)
    raise ConfigError("a secret is its text, or a table { env = NAME } or { file = PATH }")


def check_secrets(**given: object) -> None:
    """Raise ConfigError for an option that is plain text, which logs and tracebacks would show."""
    for name, value in given.items():
        if not isinstance(value, Secret | None):
            raise ConfigError(
                f"{name} must be a Secret, not {type(value).__name__}: give Secret(...),"
                " Secret.env(NAME) or Secret.file(PATH)"
            )


def redact(url: str) -> str:
    """Return `url` with user, password and query values masked, for logs, errors and reports."""
    scheme, separator, rest = url.partition("://")
    # From the last "@" on: a password may hold a "/" that nobody has encoded.
    hidden, at, place = rest.rpartition("@")
    if "?" in hidden:  # the "@" of a password, or one in the query? Better too little than a part
        return f"{scheme}{separator}***"
    place, question, query = place.partition("?")
    if question:
        names = [pair.partition("=")[0] for pair in query.split("&")]
        place += "?" + "&".join(f"{name}=***" for name in names)
    return f"{scheme}{separator}{'***@' if at else ''}{place}"
