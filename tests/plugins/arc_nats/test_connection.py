"""The connection's life: made, lost, restored, encrypted, and refused for the right reason."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arc_bus import servers
from arc_bus.errors import ConfigError, ConnectFailed
from arc_bus.notice import NoticeKind
from arc_bus.policy import Subscription
from arc_bus.secret import Secret
from arc_bus.transport import Endpoint, Outgoing
from arc_nats.core import CoreTransport
from arc_nats.options import Credentials, NatsOptions

if TYPE_CHECKING:
    from tests.plugins.arc_nats.conftest import (  # noqa: TID251 - types only
        CoreMaker,
        Notices,
        Received,
    )

Unique = Callable[..., str]
Freeze = Callable[[servers.NatsServer], Awaitable[None]]

USERS = 'authorization { user: "u@1", password: "p:%s" }'
QUICK = NatsOptions(ping_interval=0.2, reconnect_wait=0.2, connect_timeout=1.0)


def message(subject: str, body: bytes = b"") -> Outgoing:
    return Outgoing(subject, body, {}, "m")


async def restart(server: servers.NatsServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def test_subscriptions_and_requests_live_on_after_the_server_was_killed(
    core: CoreMaker, unique: Unique, notices: Notices, received: Callable[[], Received]
) -> None:
    with servers.nats_server(jetstream=False) as server:
        transport = await core(server.url, QUICK, notices)
        subject = unique()
        plain, wild, grouped = received(), received(), received()
        await transport.subscribe(Subscription(pattern=subject), plain)
        await transport.subscribe(Subscription(pattern=">"), wild)
        await transport.subscribe(Subscription(pattern=subject, group="g"), grouped)
        stopped = await transport.subscribe(Subscription(pattern=subject), gone := received())
        await stopped.stop()
        for round in (1, 2):
            await restart(server)
            await notices.wait(NoticeKind.RESTORED)
            await transport.publish(message(subject))
            for got in (plain, wild, grouped):
                await got.wait(round)
        assert gone.deliveries == []
        assert [n.kind for n in notices.all if n.kind is not NoticeKind.ERROR] == [
            NoticeKind.CONNECTED,
            *[NoticeKind.LOST, NoticeKind.RESTORED] * 2,
        ]


async def test_what_is_published_meanwhile_is_kept_and_sent(
    core: CoreMaker, unique: Unique, notices: Notices, received: Callable[[], Received]
) -> None:
    with servers.nats_server(jetstream=False) as server:
        transport, got, subject = await core(server.url, QUICK, notices), received(), unique()
        await transport.subscribe(Subscription(pattern=subject), got)
        await asyncio.to_thread(server.kill)
        await notices.wait(NoticeKind.LOST)
        for number in range(100):
            await transport.publish(message(subject, b"%d" % number))
        await asyncio.to_thread(server.start)
        await got.wait(100)
        assert got.bodies == [b"%d" % number for number in range(100)]


async def test_another_server_of_the_cluster_takes_over(
    core: CoreMaker, unique: Unique, notices: Notices
) -> None:
    with (
        servers.nats_server(jetstream=False) as one,
        servers.nats_server(jetstream=False) as two,
    ):
        url = f"nats://127.0.0.1:{one.port},127.0.0.1:{two.port}"
        transport = await core(url, QUICK, notices)
        connected = next(s for s in (one, two) if s.monitor("/connz")["num_connections"])
        await asyncio.to_thread(connected.kill)
        await notices.wait(NoticeKind.RESTORED)
        await transport.flush()


async def test_a_server_that_is_not_there_is_a_clear_error_in_bounded_time(
    unique: Unique,
) -> None:
    with servers.nats_server(jetstream=False) as server:
        port = server.port
    transport = CoreTransport(Endpoint(url=f"nats://u:canary@127.0.0.1:{port}"))
    began = time.monotonic()
    with pytest.raises(ConnectFailed, match=r"\*\*\*@127.*Start a NATS server") as caught:
        await transport.start()
    assert time.monotonic() - began < 10
    assert "canary" not in _everything(caught.value)


async def test_a_server_that_says_nothing_is_given_up_in_time(freeze: Freeze) -> None:
    with servers.nats_server(jetstream=False) as server:
        await freeze(server)
        transport = CoreTransport(
            Endpoint(url=server.url, options=NatsOptions(connect_timeout=0.3))
        )
        with pytest.raises(ConnectFailed, match=r"did not answer within 0.3 s"):
            await transport.start()
        server.resume()


async def test_wrong_credentials_fail_at_once_and_are_not_shown(notices: Notices) -> None:
    with servers.nats_server(jetstream=False, config=USERS % "right") as server:
        url = server.url.replace("://", "://u%401:canary@")
        transport = CoreTransport(Endpoint(url=url, report=notices))
        with pytest.raises(ConnectFailed, match="refused the credentials") as caught:
            await transport.start()
        assert "canary" not in _everything(caught.value)
        assert "canary" not in repr(notices.all)


async def test_credentials_of_the_url_are_decoded(core: CoreMaker) -> None:
    with servers.nats_server(jetstream=False, config=USERS % "p@ss") as server:
        transport = await core(server.url.replace("://", "://u%401:p%3Ap%40ss@"))
        await transport.flush()


async def test_credentials_are_asked_for_at_every_connect(
    core: CoreMaker, notices: Notices
) -> None:
    with servers.nats_server(jetstream=False, config=USERS % "first") as server:
        valid = "first"
        asked = 0

        def credentials() -> Credentials:
            nonlocal asked
            asked += 1
            return Credentials(user="u@1", password=Secret(f"p:{valid}"))

        options = NatsOptions(credentials=credentials, reconnect_wait=0.1)
        transport = await core(server.url, options, notices)
        await asyncio.to_thread(server.kill)
        server.config_file.write_text(USERS % "second")
        await asyncio.to_thread(server.start)
        while "refused the credentials" not in str((await notices.wait(NoticeKind.ERROR)).error):
            pass
        valid = "second"  # whoever issues them has renewed them meanwhile
        await notices.wait(NoticeKind.RESTORED)
        await transport.flush()
        assert asked >= 3


async def test_credentials_that_cannot_be_had_are_a_configuration_error(tmp_path: Path) -> None:
    with servers.nats_server(jetstream=False, config=USERS % "x") as server:

        def broken() -> Credentials:
            raise OSError("the vault is sealed")

        for options in (
            NatsOptions(credentials=broken),
            NatsOptions(nkey_seed_file=str(tmp_path / "missing")),
        ):
            transport = CoreTransport(Endpoint(url=server.url, options=options))
            with pytest.raises((ConfigError, ConnectFailed)):
                await transport.start()


async def test_a_server_with_tokens_takes_the_urls(core: CoreMaker) -> None:
    with servers.nats_server(jetstream=False, config='authorization { token: "s/3" }') as server:
        transport = await core(server.url.replace("://", "://s%2F3@"))
        await transport.flush()


# TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of its own authority for 127.0.0.1 and bus.example, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = "subjectAltName=IP:127.0.0.1,DNS:bus.example"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", cert, "-subj", "/CN=t", "-addext", names],
        check=True,
        capture_output=True,
    )
    return cert, key


def tls_config(certificate: tuple[Path, Path], extra: str = "") -> str:
    return f'tls {{ cert_file: "{certificate[0]}", key_file: "{certificate[1]}"{extra} }}'


@pytest.mark.parametrize("first", [False, True])
async def test_an_encrypted_connection_works_and_is_restored(
    core: CoreMaker,
    unique: Unique,
    notices: Notices,
    received: Callable[[], Received],
    certificate: tuple[Path, Path],
    first: bool,
) -> None:
    config = tls_config(certificate, ", handshake_first: true" if first else "")
    with servers.nats_server(jetstream=False, config=config, scheme="tls") as server:
        options = NatsOptions(tls_ca=str(certificate[0]), tls_first=first, reconnect_wait=0.2)
        transport, got, subject = await core(server.url, options, notices), received(), unique()
        await transport.subscribe(Subscription(pattern=subject), got)
        await restart(server)
        await notices.wait(NoticeKind.RESTORED)
        await transport.publish(message(subject, large := b"x" * 500_000))
        assert (await got.wait(1))[0].body == large


async def test_a_certificate_for_another_name_or_from_nobody_is_refused(
    certificate: tuple[Path, Path],
) -> None:
    with servers.nats_server(
        jetstream=False, config=tls_config(certificate), scheme="tls"
    ) as server:
        wrong_name = NatsOptions(tls_ca=str(certificate[0]), tls_hostname="other.example")
        unknown = NatsOptions()
        for options in (wrong_name, unknown):
            transport = CoreTransport(Endpoint(url=server.url, options=options))
            with pytest.raises(ConnectFailed, match="TLS with"):
                await transport.start()
        right = NatsOptions(tls_ca=str(certificate[0]), tls_hostname="bus.example")
        transport = CoreTransport(Endpoint(url=server.url, options=right))
        await transport.start()
        await transport.stop()


async def test_tls_that_is_only_offered_is_taken(
    core: CoreMaker, certificate: tuple[Path, Path]
) -> None:
    config = tls_config(certificate) + "\nallow_non_tls: true"
    with servers.nats_server(jetstream=False, config=config, scheme="tls") as server:
        transport = await core(server.url, NatsOptions(tls_ca=str(certificate[0])))
        await transport.flush()
        (connection,) = server.monitor("/connz")["connections"]
        assert connection["tls_version"]


async def test_a_tls_file_that_cannot_be_read_is_named() -> None:
    with servers.nats_server(jetstream=False) as server:
        options = NatsOptions(tls_ca="nowhere.pem")
        with pytest.raises(ConfigError, match=re.escape("nowhere.pem")):
            await CoreTransport(Endpoint(url=server.url, options=options)).start()


async def test_a_ready_context_is_used(core: CoreMaker, certificate: tuple[Path, Path]) -> None:
    with servers.nats_server(jetstream=False, config=tls_config(certificate)) as server:
        context = ssl.create_default_context(cafile=certificate[0])
        await (await core(server.url, NatsOptions(tls=context))).flush()


def _everything(error: BaseException | None) -> str:
    """What a log would show of an error: it, and all that led to it."""
    shown = ""
    while error is not None:
        shown += f"{error!r} {error} {error.args}"
        error = error.__cause__ or error.__context__
    return shown
