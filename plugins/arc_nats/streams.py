"""Streams: found, compared with what a route asks, and made or altered where that is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

from arc_bus.errors import ConfigError
from arc_bus.routing import matches
from arc_nats.api import NANOSECONDS, STREAM_EXISTS, Api, ApiFailure, StreamInfo
from arc_nats.options import JetStreamOptions

_NAME: Final = re.compile(r"[A-Za-z0-9_=@~+-]{1,255}\Z")


def check_name(name: str, what: str) -> None:
    """Raise ConfigError unless `name` can name a stream or consumer."""
    if not _NAME.match(name):
        raise ConfigError(f"{what} {name!r} must be 1 to 255 of A-Z a-z 0-9 _ = @ ~ + -")


def subjects_of(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the subjects that routes of `prefixes` can publish to: `dead.` gives `dead.>`."""
    subjects: list[str] = []
    for prefix in prefixes:
        if prefix.endswith("."):
            subjects.append(f"{prefix}>")
        else:
            subjects += [prefix, f"{prefix}.>"]
    return tuple(subjects)


def wanted(name: str, subjects: tuple[str, ...], options: JetStreamOptions) -> dict[str, object]:
    """Return the configuration of a stream as the route's options say."""
    return {
        "name": name,
        "subjects": list(subjects),
        "storage": options.storage.value,
        "retention": options.retention.value,
        "num_replicas": options.least_replicas,
        # A full stream refuses; with "old" it would lose what was confirmed.
        "discard": "new",
        "max_age": int(options.max_age * NANOSECONDS),
        "max_bytes": options.max_bytes,
        "duplicate_window": int(options.duplicate_window * NANOSECONDS),
        "allow_direct": True,
    }


def differences(
    config: Mapping[str, object], subjects: tuple[str, ...], options: JetStreamOptions
) -> list[str]:
    """Return what about an existing stream breaks the route's promises, each with both values."""
    found: list[str] = []

    def differs(field: str, is_: object, asked: object) -> None:
        found.append(f"{field} is {is_}, asked {asked}")

    has = subjects_in(config)
    missing = [one for one in subjects if not any(covers(other, one) for other in has)]
    if missing:
        differs("subjects", ", ".join(has) or "none", f"{', '.join(missing)} too")
    for field, asked in (("storage", options.storage), ("retention", options.retention)):
        if config.get(field) != asked.value:
            differs(field, config.get(field), asked.value)
    if _number(config, "num_replicas") < options.least_replicas:
        why = f" for durability={options.durability.value}" if options.durability else ""
        least = f"at least {options.least_replicas}{why}"
        differs("num_replicas", config.get("num_replicas"), least)
    age = _number(config, "max_age") / NANOSECONDS
    if age and (not options.max_age or age < options.max_age):
        differs(
            "max_age", f"{age:g} s", f"{options.max_age:g} s" if options.max_age else "for ever"
        )
    window = _number(config, "duplicate_window") / NANOSECONDS
    if window < options.duplicate_window:
        differs("duplicate_window", f"{window:g} s", f"at least {options.duplicate_window:g} s")
    limits = [name for name in _LIMITS if _number(config, name) > 0]
    if config.get("discard") != "new" and limits:
        differs("discard", f"old with {', '.join(limits)}", "new: a confirmed message must stay")
    if config.get("no_ack"):
        differs("no_ack", True, "False: without acknowledgement nothing is confirmed")
    if config.get("sealed"):
        differs("sealed", True, "False: nothing can be published to a sealed stream")
    if config.get("persist_mode") == "async":
        differs("persist_mode", "async", "default: async confirms before it stores")
    return found


_LIMITS: Final = ("max_msgs", "max_bytes", "max_msgs_per_subject")


def _number(config: Mapping[str, object], field: str) -> int:
    value = config.get(field)
    return value if isinstance(value, int) else 0


def subjects_in(config: Mapping[str, object]) -> list[str]:
    """Return a stream's own subjects."""
    return cast("list[str]", config.get("subjects") or [])


def covers(pattern: str, subject: str) -> bool:
    """Whether a stream's subject takes in all of another subject or pattern."""
    if subject.endswith(".>") and pattern.endswith(">"):
        # `a.>` covers `a.b.>`: anything below matches with any two tokens in the last place.
        return matches(pattern, f"{subject[:-1]}x") and matches(pattern, f"{subject[:-1]}x.x")
    return pattern == subject or (not subject.endswith(">") and matches(pattern, subject))


async def ensure(
    api: Api, name: str, subjects: tuple[str, ...], options: JetStreamOptions, shown: str
) -> StreamInfo:
    """Return the stream `name` as the route needs it, made or altered where `provision` allows.

    Raises ConfigError with every difference, and what would mend it.
    """
    check_name(name, "stream")
    info = await api.stream(name)
    if info is None:
        if options.provision is False:
            raise ConfigError(
                f"{shown}: there is no stream {name!r}, and none is made here; make it by arc-bus"
                " topology apply, or let the route make it, with provision=true"
            )
        if not subjects:
            raise ConfigError(
                f"{shown}: there is no stream {name!r}, and no subjects to make it for; name them"
                " with subjects=..."
            )
        try:
            config = wanted(name, subjects, options)
            info = await api.ask(f"STREAM.CREATE.{name}", config, StreamInfo)
        except ApiFailure as failure:
            if failure.error.err_code != STREAM_EXISTS:
                raise ConfigError(
                    f"{shown}: stream {name!r} for {', '.join(subjects)}: {failure}"
                ) from failure
            info = await api.stream(name)  # another service made it at the same moment
            if info is None:
                raise ConfigError(f"{shown}: stream {name!r}: {failure}") from failure
    found = differences(info.config, subjects, options)
    if found and options.provision:
        info = await alter(api, info, subjects, options, shown)
        found = differences(info.config, subjects, options)
    if found:
        raise ConfigError(
            f"{shown}: stream {name!r} is not what the route asks: {'; '.join(found)}. Alter the"
            " stream, say so in the route's options, or let provision=true alter it"
        )
    return info


async def alter(
    api: Api, info: StreamInfo, subjects: tuple[str, ...], options: JetStreamOptions, shown: str
) -> StreamInfo:
    """Update a stream; fields that we do not know stay as they are."""
    name = str(info.config.get("name"))
    has = subjects_in(info.config)
    kept = [one for one in has if not any(covers(other, one) for other in subjects)]
    missing = [one for one in subjects if not any(covers(other, one) for other in kept)]
    asked = wanted(name, (*kept, *missing), options)
    asked["num_replicas"] = max(options.least_replicas, _number(info.config, "num_replicas"))
    config = {**info.config, **asked, "no_ack": False}
    try:
        return await api.ask(f"STREAM.UPDATE.{name}", config, StreamInfo)
    except ApiFailure as failure:
        raise ConfigError(f"{shown}: stream {name!r} cannot be altered: {failure}") from failure
