"""TransportConformance and FaultConformance: the kit as pytest classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from arc_bus.testing.check import Check, NotConforming, Outcome
from arc_bus.testing.checks import CHECKS, FAULTS
from arc_bus.testing.checks.pinned import PINNED, PINNED_FAULTS
from arc_bus.testing.harness import FaultHarness, Harness
from arc_bus.testing.perform import perform
from arc_bus.testing.report import record

PROPERTY = "arc_conformance"
"""Under this name a test leaves its result in pytest's user properties, for reports."""

_OF_PYTHON = {"__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"}


class _Node(Protocol):
    user_properties: list[tuple[str, object]]


class _Request(Protocol):
    """What is used of pytest's `FixtureRequest`, so that this module does without pytest."""

    @property
    def node(self) -> _Node: ...

    def getfixturevalue(self, argname: str) -> object: ...


class _Kit:
    """A list of checks as test methods, which a subclass cannot change."""

    harness: ClassVar[type[Harness]]
    _least: ClassVar[type[Harness]] = Harness
    _checks: ClassVar[tuple[Check, ...]] = ()
    _pinned: ClassVar[Mapping[str, str]] = {}
    _tests: ClassVar[dict[str, Callable[..., None]]] = {}

    def __init_subclass__(cls, checks: tuple[Check, ...] = ()) -> None:
        """Make the test methods of a kit; refuse a subclass that gives more than a harness."""
        super().__init_subclass__()
        if checks:
            cls._checks = checks
            cls._tests = {_name(check): _test(check) for check in checks}
            for name, test in cls._tests.items():
                setattr(cls, name, test)
            return
        own = sorted(vars(cls).keys() - {"harness"} - _OF_PYTHON)
        if own:
            raise TypeError(
                f"{cls.__name__} defines {', '.join(own)}: a conformance class gives a harness"
                " and nothing else; put other tests into another class"
            )
        if not issubclass(getattr(cls, "harness", object), cls._least):
            raise TypeError(
                f"{cls.__name__} gives no harness: write harness = YourHarness,"
                f" a subclass of {cls._least.__name__}"
            )

    def test_M2_the_kit_is_whole(self) -> None:
        """M2: Every check of this version of the kit is there, and none was replaced."""
        here = {check.id: check.name for check in self._checks}
        if here != self._pinned or len(here) != len(self._checks):
            odd = sorted(here.items() ^ self._pinned.items())
            raise NotConforming(f"the kit's checks are not those of its pinned list: {odd}")
        for name, test in self._tests.items():
            if getattr(type(self), name, None) is not test:
                raise NotConforming(f"{name} was replaced or removed")


def _name(check: Check) -> str:
    return f"test_{check.id}_{check.name}"


def _test(check: Check) -> Callable[[_Kit, _Request], None]:
    def test(self: _Kit, request: _Request) -> None:
        harness = self.harness(request.getfixturevalue)
        result = perform(check, harness)
        request.node.user_properties.append((PROPERTY, record(harness.name, result)))
        if result.outcome is Outcome.FAIL:
            raise NotConforming(f"{result.sentence}\n{result.detail}") from result.error

    test.__name__ = _name(check)
    test.__doc__ = f"{check.id}: {check.sentence}"
    return test


class TransportConformance(_Kit, checks=CHECKS):
    """One test for each check.

    The whole file of a transport's author is::

        class TestMine(TransportConformance):
            harness = MyHarness

    Each test ends in one of three ways: passed, failed, or not applicable because the transport
    does not declare a capability. Leaving out, replacing or adding tests in a subclass is a
    TypeError: what the kit says is the same for everybody.
    """

    _pinned = PINNED


class FaultConformance(_Kit, checks=FAULTS):
    """The same for what happens when the broker, or a client's process, is frozen or killed.

    It takes a `FaultHarness`, whose broker runs in a process of its own.
    """

    _least = FaultHarness
    _pinned = PINNED_FAULTS
