"""The fault checks tested: every one kills a mutant, and spares a sound transport."""

from __future__ import annotations

import pytest

from arc_bus.testing import FaultHarness, VirtualTimeLoop
from arc_bus.testing.check import Outcome
from arc_bus.testing.checks import FAULTS
from arc_bus.testing.mutants.failing import FAILING, FailingRemote
from arc_bus.testing.mutants.remote import Remote, RemoteBroker, TaskVictim
from arc_bus.testing.perform import perform
from arc_bus.testing.victim import Order
from arc_bus.transport import Endpoint
from arc_inmemory.broker import Broker
from arc_inmemory.options import MemoryOptions
from arc_inmemory.transport import MemoryTransport

BY_ID = {check.id: check for check in FAULTS}


class RemoteHarness(FaultHarness):
    loop_factory = VirtualTimeLoop

    def __init__(self, kind: type[Remote]) -> None:
        super().__init__(lambda name: name)
        self._kind = kind

    async def prepare(self) -> None:
        self._remote = RemoteBroker()
        self._stored = Broker(MemoryOptions())

    @property
    def broker(self) -> RemoteBroker:
        return self._remote

    def endpoint(self) -> Endpoint:
        return Endpoint(url="memory://remote")

    def connect(self) -> Remote:
        inner = MemoryTransport(self.endpoint())
        inner.broker = self._stored
        return self._kind(inner, self._remote, self.report)

    async def victim(self, order: Order) -> TaskVictim:
        client = self.connect()
        inner = client.inner
        assert isinstance(inner, MemoryTransport)

        def die() -> None:
            if client in self._remote.clients:
                self._remote.clients.remove(client)
            inner.leave()

        return TaskVictim(client, order, die)


@pytest.mark.parametrize(("kind", "id"), [(kind, id) for kind in FAILING for id in kind.killed_by])
def test_a_mutant_is_killed_by_the_fault_checks_it_names(kind: type[Remote], id: str) -> None:
    result = perform(BY_ID[id], RemoteHarness(kind))
    assert result.outcome is Outcome.FAIL, f"{kind.__name__} survived {id}: {result.detail}"


def test_every_fault_check_kills_a_mutant() -> None:
    assert {id for kind in FAILING for id in kind.killed_by} == {*BY_ID}


@pytest.mark.parametrize("id", BY_ID)
def test_a_sound_transport_survives(id: str) -> None:
    result = perform(BY_ID[id], RemoteHarness(FailingRemote))
    assert result.outcome is Outcome.PASS, result.detail
