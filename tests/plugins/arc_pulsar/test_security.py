"""TLS and tokens: what was asked for is had or refused, and no secret is shown."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Generator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arc_bus import Bus, NoticeKind, Retry, Route, Secret
from arc_bus.errors import ConfigError, ConnectFailed
from arc_bus.permissions import of_bus
from arc_bus.servers import PulsarServer
from arc_bus.servers.ports import Port
from arc_bus.servers.process import started
from arc_pulsar.client import PulsarClient
from arc_pulsar.options import PulsarOptions

if TYPE_CHECKING:
    from tests.plugins.arc_pulsar.conftest import Connect  # noqa: TID251 - types only

KEY = b"0123456789abcdef0123456789abcdef"


def token(role: str, key: bytes = KEY) -> str:
    """Return a JSON web token as the broker's TokenProvider reads it."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = (
        f"{part(json.dumps({'alg': 'HS256'}).encode())}.{part(json.dumps({'sub': role}).encode())}"
    )
    return f"{text}.{part(hmac.digest(key, text.encode(), hashlib.sha256))}"


class GuardedServer(PulsarServer):
    """An Apache Pulsar whose health, too, is for those with a token alone."""

    def _ready(self) -> bool:
        request = urllib.request.Request(f"{self.admin_url}/admin/v2/brokers/health")
        request.add_header("Authorization", f"Bearer {token('admin')}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except urllib.error.HTTPError as error:
            error.close()
            return False


class Guarded:
    """A broker with TLS and authorization, and the authority that signed its certificate."""

    def __init__(self, server: PulsarServer, url: str, authority: Path) -> None:
        self.server = server
        self.url = url
        self.authority = str(authority)


@pytest.fixture(scope="module")
def guarded(
    real_pulsar_server: PulsarServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Guarded]:
    """A broker of its own: localhost by certificate, a role for each token."""
    folder = tmp_path_factory.mktemp("tls")
    authority, key, certificate = (folder / name for name in ("ca.pem", "key.pem", "cert.pem"))
    make_certificates(folder)
    tls = Port()
    settings = {
        "brokerServicePortTls": str(tls.number),
        "tlsCertificateFilePath": str(certificate),
        "tlsKeyFilePath": str(key),
        "tlsTrustCertsFilePath": str(authority),
        "advertisedAddress": "localhost",
        "authenticationEnabled": "true",
        "authorizationEnabled": "true",
        "authenticationProviders": (
            "org.apache.pulsar.broker.authentication.AuthenticationProviderToken"
        ),
        "tokenSecretKey": "data:;base64," + base64.b64encode(KEY).decode(),
        "superUserRoles": "admin",
        "brokerClientAuthenticationPlugin": (
            "org.apache.pulsar.client.impl.auth.AuthenticationToken"
        ),
        "brokerClientAuthenticationParameters": "token:" + token("admin"),
    }
    tls.release()
    with started(GuardedServer(settings=settings, port=None, folder=None)) as server:
        yield Guarded(server, f"pulsar+ssl://localhost:{tls.number}", authority)


def make_certificates(folder: Path) -> None:
    """Make an authority and a certificate for localhost."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=test authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "raw.pem", "-out", "cert.csr",
            "-subj", "/CN=localhost")  # fmt: skip
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", "raw.pem", "-out", "key.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    signing = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", "cert.csr", "-out", "cert.pem", "-extfile", "names", *signing)


async def test_a_token_over_tls_connects_and_reads_what_it_wrote(
    connect: Connect, guarded: Guarded, topic: str
) -> None:
    options = PulsarOptions(token=Secret(token("admin")), tls_trust_certs=guarded.authority)
    rig = await connect(options, url=guarded.url)
    reader = await rig.read(topic)
    await rig.publish(topic, b"x")
    assert (await reader.until(1))[0].body == b"x"


async def test_a_token_may_come_from_a_file_or_a_supplier(
    connect: Connect, guarded: Guarded, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(token("admin") + "\n")
    trust = guarded.authority
    await connect(PulsarOptions(token=Secret.file(file), tls_trust_certs=trust), url=guarded.url)
    supplied = PulsarOptions(token_supplier=lambda: token("admin"), tls_trust_certs=trust)
    await connect(supplied, url=guarded.url)


async def test_a_supplier_that_raises_is_the_cause_of_a_refused_connection(
    connect: Connect, guarded: Guarded
) -> None:
    def broken() -> str:
        raise LookupError("the vault is sealed")

    options = PulsarOptions(token_supplier=broken, tls_trust_certs=guarded.authority)
    with pytest.raises(ConnectFailed) as caught:
        await connect(options, url=guarded.url)
    assert isinstance(caught.value.__cause__, LookupError)


async def test_a_certificate_of_an_unknown_authority_is_refused(
    connect: Connect, guarded: Guarded
) -> None:
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        await connect(PulsarOptions(token=Secret(token("admin"))), url=guarded.url)


async def test_hazard_3_a_certificate_for_another_host_is_refused(
    connect: Connect, guarded: Guarded
) -> None:
    options = PulsarOptions(token=Secret(token("admin")), tls_trust_certs=guarded.authority)
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        await connect(options, url=guarded.url.replace("localhost", "127.0.0.1"))


async def test_hazard_3_the_library_verifies_the_host_itself_wherever_it_connects_later(
    connect: Connect, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unverified(_client: PulsarClient) -> None:
        """Let the library be the first to connect, as it is after a lookup."""

    monkeypatch.setattr(PulsarClient, "_knock", unverified)
    options = PulsarOptions(
        token=Secret(token("admin")), tls_trust_certs=guarded.authority, connect_timeout=5.0
    )
    await connect(options, url=guarded.url)
    with pytest.raises(ConnectFailed):
        await connect(options, url=guarded.url.replace("localhost", "127.0.0.1"))


@pytest.mark.parametrize("wrong", [None, token("admin", b"x" * 32)], ids=["none", "forged"])
async def test_wrong_credentials_are_refused_at_start_without_being_shown(
    connect: Connect, guarded: Guarded, wrong: str | None
) -> None:
    options = PulsarOptions(
        token=Secret(wrong) if wrong else None, tls_trust_certs=guarded.authority
    )
    with pytest.raises(ConnectFailed, match="credentials") as caught:
        await connect(options, url=guarded.url)
    assert wrong is None or wrong not in str(caught.value)


async def test_a_role_that_may_not_publish_or_read_is_told_what_it_lacks(
    connect: Connect, guarded: Guarded, topic: str
) -> None:
    options = PulsarOptions(token=Secret(token("stranger")), tls_trust_certs=guarded.authority)
    rig = await connect(options, url=guarded.url)
    with pytest.raises(ConfigError, match="grant it produce or consume"):
        await rig.publish(topic, b"x")
    with pytest.raises(ConfigError, match="grant it produce or consume"):
        await rig.read(topic)


def admin(server: PulsarServer, method: str, path: str, body: object = None) -> None:
    """Ask the admin API as the superuser."""
    request = urllib.request.Request(
        f"{server.admin_url}/admin/v2/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token('admin')}", "Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
        pass


def grant(server: PulsarServer, command: str) -> None:
    """Do what one line of the generated commands does, by the REST call that it stands for."""
    program, kind, verb, place, *options = command.split()
    told = dict(zip(options[::2], options[1::2], strict=True))
    assert program == "pulsar-admin"
    if verb == "grant-subscription-permission":
        path = f"namespaces/{place}/permissions/subscription/{told['--subscription']}"
        admin(server, "POST", path, told["--roles"].split(","))
        return
    assert verb == "grant-permission"
    path = place.replace("://", "/") if kind == "topics" else f"namespaces/{place}"
    actions = told["--actions"].split(",")
    admin(server, "POST", f"{path}/permissions/{told['--role']}", actions)


async def test_a_role_with_the_generated_permissions_can_serve_and_nothing_else(
    guarded: Guarded, topic: str
) -> None:
    """One message is handled, one dead-lettered; other topics and other groups are refused."""
    options = PulsarOptions(token=Secret(token("worker")), tls_trust_certs=guarded.authority)
    bus = Bus("worker", {"persistent://": Route(guarded.url, options=options)})
    handled = asyncio.get_running_loop().create_future()
    dead = asyncio.Event()

    async def work(payload: dict[str, object]) -> None:
        if payload["kind"] == "bad":
            raise RuntimeError("on purpose")
        handled.set_result(payload["kind"])

    bus.subscribe(topic, work, group="hands", retry=Retry(attempts=1))
    bus.observe(lambda notice: dead.set() if notice.kind is NoticeKind.DEAD_LETTERED else None)
    for name in (topic, f"{topic}-dlq", f"{topic}-other"):
        admin(guarded.server, "PUT", name.replace("://", "/"))
    for granted in of_bus(bus, sends=[topic]).values():
        for command in granted.splitlines():
            grant(guarded.server, command)
    async with asyncio.timeout(60), bus:
        await bus.publish(topic, {"kind": "good"})
        await bus.publish(topic, {"kind": "bad"})
        assert await handled == "good"
        await dead.wait()
        with pytest.raises(ConfigError, match="grant it produce or consume"):
            await bus.publish(f"{topic}-other", {"kind": "x"})
        with pytest.raises(ConfigError, match="grant it produce or consume"):
            await bus.subscribe(f"{topic}-other", work, group="hands", dead_letter=None)
