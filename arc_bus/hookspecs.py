"""Every hook of `arc_bus`, in lifecycle order: the table of contents of what a plugin can do.

All are plain functions and run while a bus is made or started, never for a message: each returns
a callable or an object, and the bus folds those into one plain call. A plugin implements the ones
it needs, as functions of a module or methods of an object, marked with `arc_bus.hookimpl`; for
each, None or an empty answer means "nothing from me". Results are folded in the order in which
the plugins were given to the bus, first one outermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from cyclopts import App

    from arc_bus.bus import Bus
    from arc_bus.check import Check, HealthCheck
    from arc_bus.config import Config
    from arc_bus.contracts.registry import Registry
    from arc_bus.message import Message
    from arc_bus.middleware import ConsumeMiddleware, Operation, PublishMiddleware, Slot
    from arc_bus.notice import Observer
    from arc_bus.plugins import Outbox
    from arc_bus.policy import Subscription
    from arc_bus.topology import TopologyFactory
    from arc_bus.transport import TransportFactory
    from arc_bus.wire import Codec

hookspec = pluggy.HookspecMarker("arc_bus")
hookimpl = pluggy.HookimplMarker("arc_bus")


@hookspec
def arc_configure(config: Config) -> object:
    """Read settings, before anything is made. Runs once when the bus is constructed.

    `config.settings["<plugin name>"]` is the plugin's own table. Raise ConfigError for a value
    that cannot work; the bus is then not made. A module that is a plugin is shared by all buses of
    the process; to keep something for this one, return an object with hooks, which then takes the
    place of the plugin of its name (`plugin_name`).
    """
    raise NotImplementedError


@hookspec
def arc_transports() -> Mapping[str, TransportFactory]:
    """Return URL scheme -> factory. Runs when the bus is constructed; nothing is connected.

    The factory imports the vendor's library and raises MissingExtra without it. Two plugins
    claiming one scheme is a PluginError.
    """
    raise NotImplementedError


@hookspec
def arc_topologies() -> Mapping[str, TopologyFactory]:
    """Return URL scheme -> what plans and makes streams or topics there, where there are any.

    Runs when `arc-bus topology`, `backlog` or `doctor` asks; see `arc_bus.topology`.
    """
    raise NotImplementedError


@hookspec
def arc_codecs() -> Iterable[Codec]:
    """Return codecs for content types beyond JSON, MessagePack and CloudEvents. Same moment."""
    raise NotImplementedError


@hookspec
def arc_contracts(registry: Registry) -> None:
    """Register payload contracts with `registry`. Runs when the bus is constructed."""


@hookspec
def arc_dependencies(bus: Bus) -> Mapping[type, Callable[[Message], object]]:
    """Return type -> provider for handler parameters annotated with that type. Runs at start.

    The provider is called once for each attempt of a message whose handler asks for the type. It
    returns the object, or `arc_bus.scoped(manager)` around an async context manager whose value is
    the object and which is left when the attempt has ended, with its exception if it failed.
    """
    raise NotImplementedError


@hookspec
def arc_outboxes() -> Mapping[type, Outbox]:
    """Return session type -> outbox, for `bus.publish(..., session=s)`. Runs at start.

    The outbox is awaited with the session and the encoded message instead of the transport; it
    stores the message in the session's transaction and relays it later by `bus.forward`.
    """
    raise NotImplementedError


@hookspec
def arc_publish_middleware(bus: Bus, operation: Operation) -> Sequence[PublishMiddleware]:
    """Return wrappers of the publish or the request pipeline. Runs at start, once for each.

    The first plugin's first wrapper runs outermost. None of them: the pipeline is the bare send.
    """
    raise NotImplementedError


@hookspec
def arc_consume_middleware(
    bus: Bus, subscription: Subscription
) -> Sequence[tuple[Slot, ConsumeMiddleware]]:
    """Return wrappers for one subscription, each with its slot. Runs when it starts.

    The slots' order is fixed by `Slot`; within a slot the first plugin's first runs outermost.
    """
    raise NotImplementedError


@hookspec
def arc_lifespan(bus: Bus) -> AbstractAsyncContextManager[object]:
    """Return what is entered before the transports start and left after they have stopped.

    Entered in plugin order, left in reverse; leaving runs even when a later start failed.
    """
    raise NotImplementedError


@hookspec
def arc_observers(bus: Bus) -> Sequence[Observer]:
    """Return callables for what the bus reports: connected, lost, retried... Runs at start."""
    raise NotImplementedError


@hookspec
def arc_health(bus: Bus) -> Sequence[HealthCheck]:
    """Return checks that `bus.health()` runs beside those of the transports. Runs at start."""
    raise NotImplementedError


@hookspec
def arc_commands(app: App) -> None:
    """Add sub-commands to `arc-bus`. Runs when the command starts; no bus exists then."""


@hookspec
def arc_doctor(config: Config) -> Sequence[Callable[[], Check]]:
    """Return the diagnoses that `arc-bus doctor` runs for this plugin, each with its remedy."""
    raise NotImplementedError
