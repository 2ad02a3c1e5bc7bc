"""`arc-bus asyncapi`, `permissions` and `contracts check`: a service's interface, and changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only

SERVICE = """
import msgspec
from arc_bus import Bus
from arc_bus.contracts import Contract

class Order(msgspec.Struct):
    item: str

class Sold(msgspec.Struct):
    item: str

bus = Bus("shop", {"": "memory://"})
bus.registry.register(Contract(destination="shop.order", payload=Order))
bus.registry.register(Contract(destination="shop.sold.*", payload=Sold))

@bus.subscribe("shop.order")
async def take(order: Order) -> None: ...
"""


@pytest.fixture
def shop(bare_shell: Shell) -> Shell:
    """A shell where there is a service, and the document of what it was."""
    (bare_shell.folder / "service.py").write_text(SERVICE)
    old = bare_shell("asyncapi", "service:bus", "--sends", "shop.sold.*")
    (bare_shell.folder / "old.json").write_text(old)
    return bare_shell


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_service_is_compared_with_what_it_has_become(shop: Shell) -> None:
    check = ("contracts", "check", "old.json", "--bus", "service:bus", "--json")
    assert shop(*check) == ""

    (shop.folder / "service.py").write_text(SERVICE.replace("item: str", "thing: str"))
    where = {change["where"] for change in lines(shop(*check, code=1)) if change["breaking"]}
    assert where == {
        f"shop.{name}.{field}" for name in ("order", "sold.any") for field in ("item", "thing")
    }


def test_a_services_document_is_not_compared_with_the_platforms_contracts(shop: Shell) -> None:
    said = shop("contracts", "check", "old.json", code=2)

    assert "describes 'shop'" in said
    assert "--bus MODULE:NAME" in said
    both = ("contracts", "check", "old.json", "old.json", "--bus", "service:bus")
    assert "compare with one of them" in shop(*both, code=2)


@pytest.mark.parametrize("command", ["asyncapi", "permissions"])
def test_who_does_not_say_what_is_sent_is_told_that_it_is_left_out(
    shop: Shell, command: str
) -> None:
    with shop.started(command, "service:bus", "--json") as ended:
        assert "what shop publishes" in (said := ended.communicate(timeout=60)[1])
        assert "--sends" in said
    with shop.started(command, "service:bus", "--json", "--sends", "shop.order") as ended:
        assert ended.communicate(timeout=60)[1] == ""


def test_sends_are_those_of_a_bus(bare_shell: Shell) -> None:
    assert "MODULE:NAME" in bare_shell("asyncapi", "--sends", "a.b", code=2)


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON"])
def test_what_is_no_document_is_refused(bare_shell: Shell, text: str) -> None:
    (bare_shell.folder / "x.json").write_text(text)

    assert "AsyncAPI" in bare_shell("contracts", "check", "x.json", code=2)


def test_a_removed_field_breaks_the_contracts_and_an_added_optional_one_does_not(
    bare_shell: Shell,
) -> None:
    now = json.loads(bare_shell("asyncapi"))
    old, new = bare_shell.folder / "old.json", bare_shell.folder / "new.json"

    old.write_text(json.dumps(now))
    assert bare_shell("contracts", "check", "old.json", "--json") == ""

    request = now["components"]["schemas"]["BrainRequest"]
    request["properties"]["mood"] = {"type": "string"}
    new.write_text(json.dumps(now))
    (added,) = lines(bare_shell("contracts", "check", "old.json", "new.json", "--json"))
    assert not added["breaking"]

    del request["properties"]["user_input"]
    request["required"].remove("user_input")
    new.write_text(json.dumps(now))
    said = bare_shell("contracts", "check", "old.json", "new.json", "--json", code=1)
    assert any(change["breaking"] for change in lines(said))
