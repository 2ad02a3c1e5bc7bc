"""What is planned, applied and left alone, and the exit codes that say so, on a nats-server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from arc_bus.servers import NatsServer

if TYPE_CHECKING:
    from tests.arc_bus.cli.conftest import Shell  # noqa: TID251 - types only


def test_what_loses_messages_is_left_alone_unless_it_is_asked_for(
    bare_shell: Shell, nats_server: NatsServer, unique: Callable[..., str]
) -> None:
    prefix = unique("cli")
    url = f"{nats_server.url.replace('nats://', 'nats+jetstream://')}/{prefix}"
    longer, shorter = (f"{prefix}.={url}?max_age={age}" for age in (1200, 600))

    planned = bare_shell("topology", "plan", "--json", ARC_BUS_ROUTES=longer)
    assert json.loads(planned)["action"] == "create"
    bare_shell("topology", "diff", code=1, ARC_BUS_ROUTES=longer)
    bare_shell("topology", "apply", ARC_BUS_ROUTES=longer)
    bare_shell("topology", "diff", ARC_BUS_ROUTES=longer)

    left = bare_shell("topology", "apply", "--json", code=1, ARC_BUS_ROUTES=shorter)
    assert '"done":false' in left
    assert "--destroy" in left
    applied = bare_shell("topology", "apply", "--destroy", "--json", ARC_BUS_ROUTES=shorter)
    assert json.loads(applied)["done"] is True
    bare_shell("topology", "diff", ARC_BUS_ROUTES=shorter)


def test_routes_on_which_nothing_is_made_are_an_error_with_its_remedy(bare_shell: Shell) -> None:
    said = bare_shell("topology", "plan", code=2, ARC_BUS_ROUTES="a.=memory://")

    assert "route a prefix to nats+jetstream:// or pulsar://" in said
