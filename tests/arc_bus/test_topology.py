"""What is declared where: contracts, subscriptions and dead letters by the routes of a bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from arc_bus import Bus, hookimpl
from arc_bus.contracts import Contract
from arc_bus.topology import Change, Declared, Topology, TopologyFactory, Waiting, places
from arc_bus.transport import Endpoint


class Nothing:
    """A topology that is as declared."""

    async def plan(self, declared: Declared) -> list[Change]:
        return []

    async def backlog(self) -> list[Waiting]:
        return []


class Planner:
    """Says that `memory://` has a topology, and remembers for which endpoints it was opened."""

    plugin_name = "planner"

    def __init__(self) -> None:
        self.opened: list[Endpoint] = []

    @hookimpl
    def arc_topologies(self) -> Mapping[str, TopologyFactory]:
        return {"memory": self._open}

    @asynccontextmanager
    async def _open(self, endpoint: Endpoint) -> AsyncGenerator[Topology]:
        self.opened.append(endpoint)
        yield Nothing()


ROUTES = {"a.": "memory://one", "b.": "memory://two", "dead.": "memory://two"}


def make(planner: Planner) -> Bus:
    bus = Bus("service", ROUTES, plugins=[planner])
    bus.registry.register(Contract(destination="a.x", payload=dict))
    bus.registry.register(Contract(destination="b.x", payload=dict))

    async def handle(payload: dict[str, object]) -> None: ...

    bus.subscribe("a.>", handle, group="g")
    bus.subscribe("b.x", handle, dead_letter=None)
    return bus


def test_each_place_is_told_what_is_routed_to_it() -> None:
    one, two = (place.declared for place in places(make(Planner())))

    assert [contract.destination for contract in one.contracts] == ["a.x"]
    assert [subscription.pattern for subscription in one.subscriptions] == ["a.>"]
    assert one.dead == ()
    assert [contract.destination for contract in two.contracts] == ["b.x"]
    assert [subscription.pattern for subscription in two.subscriptions] == ["b.x"]
    assert two.dead == ("dead.a.>",), "dead letters of another route; b.x wants none"


async def test_a_place_is_opened_with_the_endpoint_that_its_transport_has() -> None:
    planner = Planner()
    for place in places(make(planner)):
        async with place.open() as topology:
            assert await topology.plan(place.declared) == []

    assert [(endpoint.url, endpoint.prefixes) for endpoint in planner.opened] == [
        ("memory://one", ("a.",)),
        ("memory://two", ("b.", "dead.")),
    ]
    assert {endpoint.service for endpoint in planner.opened} == {"service"}


def test_where_no_plugin_has_a_topology_nothing_is_to_be_made() -> None:
    assert list(places(Bus("service", ROUTES))) == []
