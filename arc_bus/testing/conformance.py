"""TransportConformance: the kit as a pytest class."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from arc_bus.testing.check import Check, NotConforming, Outcome
from arc_bus.testing.checks import CHECKS
from arc_bus.testing.checks.pinned import PINNED
from arc_bus.testing.harness import Harness
from arc_bus.testing.perform import perform
from arc_bus.testing.report import record

PROPERTY = "arc_conformance"
"""Under this name a test leaves its result in pytest's user properties, for reports."""


class _Node(Protocol):
    user_properties: list[tuple[str, object]]


class _Request(Protocol):
    """What is used of pytest's `FixtureRequest`, so that this module does without pytest."""

    @property
    def node(self) -> _Node: ...

    def getfixturevalue(self, argname: str) -> object: ...


class TransportConformance:
    """One test for each check.

    The whole file of a transport's author is::

        class TestMine(TransportConformance):
            harness = MyHarness

    Each test ends in one of three ways: passed, failed, or not applicable because the transport
    does not declare a capability. Leaving out, replacing or adding tests in a subclass is a
    TypeError: what the kit says is the same for everybody.
    """

    harness: ClassVar[type[Harness]]

    def __init_subclass__(cls) -> None:
        """Refuse a subclass that changes what is checked."""
        super().__init_subclass__()
        own = sorted(vars(cls).keys() - {"harness", "__module__", "__doc__", "__qualname__"})
        own = [name for name in own if name not in ("__firstlineno__", "__static_attributes__")]
        if own:
            raise TypeError(
                f"{cls.__name__} defines {', '.join(own)}: a conformance class gives a harness"
                " and nothing else; put other tests into another class"
            )
        if not issubclass(getattr(cls, "harness", object), Harness):
            raise TypeError(f"{cls.__name__} gives no harness: write harness = YourHarness")

    def test_M2_the_kit_is_whole(self) -> None:
        """M2: Every check of this version of the kit is there, and none was replaced."""
        here = {check.id: check.name for check in CHECKS}
        if here != PINNED or len(here) != len(CHECKS):
            odd = sorted(here.items() ^ PINNED.items())
            raise NotConforming(f"the kit's checks are not those of its pinned list: {odd}")
        for name, test in _TESTS.items():
            if getattr(type(self), name, None) is not test:
                raise NotConforming(f"{name} was replaced or removed")


def _name(check: Check) -> str:
    return f"test_{check.id}_{check.name}"


def _test(check: Check) -> Callable[[TransportConformance, _Request], None]:
    def test(self: TransportConformance, request: _Request) -> None:
        harness = self.harness(request.getfixturevalue)
        result = perform(check, harness)
        request.node.user_properties.append((PROPERTY, record(harness.name, result)))
        if result.outcome is Outcome.FAIL:
            raise NotConforming(f"{result.sentence}\n{result.detail}") from result.error

    test.__name__ = _name(check)
    test.__qualname__ = f"TransportConformance.{test.__name__}"
    test.__doc__ = f"{check.id}: {check.sentence}"
    return test


_TESTS = {_name(check): _test(check) for check in CHECKS}

for _given, _made in _TESTS.items():
    setattr(TransportConformance, _given, _made)
