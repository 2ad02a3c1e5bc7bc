"""The kit tested: every mutant is killed by the checks it names, and every check kills one."""

from __future__ import annotations

import pytest

from arc_bus.testing import VirtualTimeLoop
from arc_bus.testing.check import Outcome
from arc_bus.testing.checks import CHECKS
from arc_bus.testing.harness import Harness
from arc_bus.testing.mutants import MUTANTS
from arc_bus.testing.mutants.mutant import Mutant
from arc_bus.testing.perform import perform
from arc_bus.transport import Endpoint, Transport
from arc_inmemory.broker import Broker
from arc_inmemory.options import MemoryOptions
from arc_inmemory.transport import MemoryTransport

BY_ID = {check.id: check for check in CHECKS}


class MutantHarness(Harness):
    loop_factory = VirtualTimeLoop

    def __init__(self, mutant: type[Mutant]) -> None:
        super().__init__(_no_fixture)
        self.broker = Broker(MemoryOptions())
        self.peers: list[Mutant] = []
        declared = mutant.of_class(MemoryTransport.capabilities)
        self.kind = type(mutant.__name__, (mutant,), {"capabilities": declared})

    def connect(self) -> Transport:
        inner = MemoryTransport(Endpoint(url="memory://mutants"))
        inner.broker = self.broker
        mutant: Mutant = self.kind(inner, self.peers)
        self.peers.append(mutant)
        return mutant


def _no_fixture(name: str) -> object:
    raise LookupError(name)


@pytest.mark.parametrize(
    ("mutant", "id"), [(mutant, id) for mutant in MUTANTS for id in mutant.killed_by]
)
def test_a_mutant_is_killed_by_the_checks_it_names(mutant: type[Mutant], id: str) -> None:
    result = perform(BY_ID[id], MutantHarness(mutant))
    assert result.outcome is Outcome.FAIL, f"{mutant.__name__} survived {id}: {result.detail}"


def test_every_check_kills_a_mutant() -> None:
    proved = {id for mutant in MUTANTS for id in mutant.killed_by}
    assert proved == {*BY_ID}


def test_what_is_sound_survives() -> None:
    results = [perform(check, MutantHarness(Sound)) for check in CHECKS]
    failed = [f"{r.id}: {r.detail}" for r in results if r.outcome is Outcome.FAIL]
    assert not failed


class Sound(Mutant):
    """No fault: what fails on a mutant fails for its fault, not for being wrapped."""

    killed_by = ()
