"""Finding plugins, and a typed face for every hook; the only file that touches pluggy's relay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import pluggy

from arc_bus import hookspecs
from arc_bus.errors import ConfigError, MissingExtra, PluginError, did_you_mean
from arc_bus.message import Message
from arc_bus.middleware import ConsumeMiddleware, Operation, PublishMiddleware, Slot
from arc_bus.notice import Observer
from arc_bus.policy import Subscription
from arc_bus.transport import Endpoint, Outgoing, Transport, TransportFactory

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

    from cyclopts import App

    from arc_bus.bus import Bus
    from arc_bus.check import Check, HealthCheck
    from arc_bus.config import Config
    from arc_bus.contracts.registry import Registry
    from arc_bus.topology import TopologyFactory
    from arc_bus.wire import Codec

GROUP = "arc_bus"
"""The entry point group, which is also pluggy's project name."""

DISTRIBUTION = "arc-bus"
"""What these plugins are installed by, with an extra for each that needs one."""

Plugin: TypeAlias = str | ModuleType | object
"""An entry point's name, or the plugin itself: a module or object with `@hookimpl` functions."""

Provider: TypeAlias = Callable[[Message], object]
Outbox: TypeAlias = Callable[[object, Outgoing], Awaitable[None]]
"""Stores an encoded message in the transaction of a session, to be relayed later."""


class Plugins:
    """The plugins of one bus, in the order given. Every bus has its own; nothing is shared."""

    def __init__(self, plugins: Iterable[Plugin] = (), without: Iterable[str] = ()) -> None:
        """Load `plugins` by name or object, leaving out the names in `without`.

        A later plugin replaces an earlier one of the same name: that is how a test double is put
        in. Raises PluginError, MissingExtra.
        """
        self._without = frozenset(without)
        named = [(p if isinstance(p, str) else name_of(p), p) for p in plugins]
        unknown = self._without - {name for name, _ in named}
        if unknown and (unknown := unknown.difference(known := installed())):
            name = min(unknown)
            raise PluginError(
                f"without={name!r}: there is no such plugin;{did_you_mean(name, known)} installed:"
                f" {', '.join(known)}"
            )
        chosen: dict[str, object] = {}
        for name, plugin in named:
            if name not in self._without:
                chosen[name] = load(name) if isinstance(plugin, str) else plugin
        self._register_all(chosen)

    def _register_all(self, chosen: Mapping[str, object]) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        # pluggy calls the last registered first; registering backwards makes it the order given.
        for name in reversed(list(chosen)):
            self._register(chosen[name], name)
        self._order = list(chosen)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the plugins, in order."""
        return tuple(self._order)

    def get(self, name: str) -> object | None:
        """Return the plugin of that name, or None."""
        plugin: object | None = self._manager.get_plugin(name)
        return plugin

    def _register(self, plugin: object, name: str) -> None:
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin {name!r} cannot be used: {error}") from error
        callers: list[Any] = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise PluginError(
                f"plugin {name!r} implements no hook: mark its functions with @arc_bus.hookimpl;"
                " arc_bus/hookspecs.py lists them"
            )

    def configure(self, config: Config) -> None:
        """Run `arc_configure`, and put what it returned in the place of the same name."""
        made: list[object] = self._manager.hook.arc_configure(config=config)
        if made:
            chosen = {name: self.get(name) for name in self._order}
            self._register_all({**chosen, **{name_of(plugin): plugin for plugin in made}})

    def transport(self, endpoint: Endpoint) -> Transport:
        """Return an unstarted transport for the endpoint's URL, loading its plugin if need be.

        Raises PluginError for a scheme that nobody serves, MissingExtra without its library.
        """
        scheme = endpoint.url.partition("://")[0]
        factories = self._factories()
        if scheme not in factories and scheme not in self._without and _entry_point(scheme):
            plugin = load(scheme)
            if not self._manager.is_registered(plugin):
                self._register(plugin, scheme)
                self._order.append(scheme)
            factories = self._factories()
        if scheme not in factories:
            known = sorted({*factories, *installed()})
            raise PluginError(
                f"no plugin serves the URL scheme {scheme!r};{did_you_mean(scheme, known)}"
                f" plugins installed: {', '.join(known)}."
                f" A plugin package names it in the entry point group {GROUP!r}"
            )
        return factories[scheme](endpoint)

    def _factories(self) -> Mapping[str, TransportFactory]:
        merged: dict[str, TransportFactory] = {}
        answers: list[Mapping[str, TransportFactory]] = self._manager.hook.arc_transports()
        for answer in answers:
            for scheme, factory in answer.items():
                if scheme in merged:
                    raise PluginError(f"two plugins serve the URL scheme {scheme!r}; remove one")
                merged[scheme] = factory
        return merged

    def topology(self, url: str) -> TopologyFactory | None:
        """Return what opens the topology of a place, None where nothing is to be made there."""
        answers: list[Mapping[str, TopologyFactory]] = self._manager.hook.arc_topologies()
        scheme = url.partition("://")[0]
        return next((answer[scheme] for answer in answers if scheme in answer), None)

    def codecs(self) -> list[Codec]:
        """Return the codecs of all plugins."""
        return _flat(self._manager.hook.arc_codecs())

    def contracts(self, registry: Registry) -> None:
        """Let every plugin register its contracts."""
        self._manager.hook.arc_contracts(registry=registry)

    def dependencies(self, bus: Bus) -> dict[type, Provider]:
        """Return type -> provider; the first plugin that offers a type provides it."""
        return _first_wins(self._manager.hook.arc_dependencies(bus=bus))

    def outboxes(self) -> dict[type, Outbox]:
        """Return session type -> outbox."""
        return _first_wins(self._manager.hook.arc_outboxes())

    def publish_middleware(self, bus: Bus, operation: Operation) -> list[PublishMiddleware]:
        """Return the publish or request wrappers, outermost first."""
        return _flat(self._manager.hook.arc_publish_middleware(bus=bus, operation=operation))

    def consume_middleware(
        self, bus: Bus, subscription: Subscription
    ) -> dict[Slot, list[ConsumeMiddleware]]:
        """Return the wrappers of one subscription by slot, outermost first.

        Raises ConfigError where it wants `once` and no plugin keeps an inbox, or two do.
        """
        slots: dict[Slot, list[ConsumeMiddleware]] = {slot: [] for slot in Slot}
        answers: list[Sequence[tuple[Slot, ConsumeMiddleware]]] = (
            self._manager.hook.arc_consume_middleware(bus=bus, subscription=subscription)
        )
        for slot, wrap in _flat(answers):
            slots[slot].append(wrap)
        if len(slots[Slot.ONCE]) != subscription.once:
            raise ConfigError(
                f"subscription {subscription.pattern!r}: once={subscription.once}, but"
                f" {len(slots[Slot.ONCE])} plugins keep an inbox for it; once=True needs one, such"
                " as Bus(plugins=[Store(...)])"
            )
        return slots

    def lifespans(self, bus: Bus) -> list[AbstractAsyncContextManager[object]]:
        """Return the lifespans, first to be entered first."""
        answer: list[AbstractAsyncContextManager[object]] = self._manager.hook.arc_lifespan(bus=bus)
        return answer

    def observers(self, bus: Bus) -> list[Observer]:
        """Return the observers of all plugins."""
        return _flat(self._manager.hook.arc_observers(bus=bus))

    def health(self, bus: Bus) -> list[HealthCheck]:
        """Return the health checks of all plugins."""
        return _flat(self._manager.hook.arc_health(bus=bus))

    def commands(self, app: App) -> None:
        """Let every plugin add its sub-commands to `app`."""
        self._manager.hook.arc_commands(app=app)

    def doctor(self, config: Config) -> list[Callable[[], Check]]:
        """Return the diagnoses of all plugins."""
        return _flat(self._manager.hook.arc_doctor(config=config))


def _flat(answers: list[Any]) -> list[Any]:
    return [item for answer in answers for item in answer]


def _first_wins(answers: list[Any]) -> dict[type, Any]:
    merged: dict[type, Any] = {}
    for answer in answers:
        for key, value in answer.items():
            merged.setdefault(key, value)
    return merged


def name_of(plugin: object) -> str:
    """Return the name a plugin object goes by.

    That is its `plugin_name`; else the entry point name of a module; else the lower-case name of
    its class, so that `Store(...)` is `store` and replaces the plugin loaded as "store".
    """
    own = getattr(plugin, "plugin_name", None)
    if isinstance(own, str):
        return own
    if isinstance(plugin, ModuleType):
        named = (entry.name for entry in _entry_points() if entry.module == plugin.__name__)
        return next(named, plugin.__name__.removeprefix("arc_"))
    return type(plugin).__name__.lower()


def installed() -> list[str]:
    """Return the names of all plugins that are installed, in the order of the alphabet."""
    return sorted({entry.name for entry in _entry_points()})


def load(name: str) -> object:
    """Import the plugin whose entry point is `name`. Raises PluginError, MissingExtra."""
    entry = _entry_point(name)
    if entry is None:
        known = installed()
        raise PluginError(
            f"no plugin is installed under the name {name!r};{did_you_mean(name, known)}"
            f" installed: {', '.join(known) or 'none'}"
        )
    try:
        plugin: object = entry.load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == entry.module.partition(".")[0]:
            raise PluginError(
                f"plugin {name!r} names a module that is not there: {error}"
            ) from error
        if entry.dist is not None and entry.dist.name != DISTRIBUTION:
            raise PluginError(
                f"plugin {name!r} needs the library {error.name!r}, which is not installed; see"
                f" what {entry.dist.name!r} asks for"
            ) from error
        # Our plugins are packages named after their extra: `nats+jetstream` is in arc_nats.
        extra = entry.module.partition(".")[0].removeprefix("arc_")
        raise MissingExtra(extra, error.name) from error
    except Exception as error:
        raise PluginError(f"plugin {name!r} cannot be imported: {error}") from error
    return plugin


def _entry_point(name: str) -> EntryPoint | None:
    return next((entry for entry in _entry_points() if entry.name == name), None)


def _entry_points() -> EntryPoints:
    # Imported when first asked: it is a fifth of the time that `import arc_bus` may take.
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)
