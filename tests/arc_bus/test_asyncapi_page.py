from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from arc_bus import Bus
from arc_bus.asyncapi import Document, document, of_bus
from arc_bus.asyncapi_page import page
from arc_bus.cli import main
from arc_bus.contracts import BrainError, BrainRequest, BrainResponse, builtin
from arc_bus.contracts.registry import Contract

BAD = "<script>alert(\"1\")</script> & 'quoted'"
VOID = {"meta"}


class Reading(HTMLParser):
    """What a browser would find, and that each element is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.style = ""
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)


class Odd(msgspec.Struct):
    """An odd payload: `<b>` & co."""

    name: str


def service() -> Document:
    bus = Bus("svc", routes={"": "memory://", "persistent://arc/": "memory://"})

    @bus.subscribe("agent.brain.request", group="workers")
    async def reason(request: BrainRequest) -> BrainResponse | BrainError:
        raise NotImplementedError

    @bus.subscribe("odd.*")
    async def odd(payload: Odd) -> None:
        raise NotImplementedError

    return of_bus(bus, version="1.2.3", sends=["agent.tts.request"])


def contracts() -> Document:
    return document(builtin(), title="A.R.C. contracts", version="1")


@pytest.mark.parametrize("make", [contracts, service])
def test_everything_of_the_document_has_its_place_and_every_link_leads_to_one(make: object) -> None:
    assert callable(make)
    found: Document = make()
    read = Reading(page(found))
    assert len(read.ids) == len(set(read.ids))
    whole = msgspec.convert(found, dict[str, dict[str, object] | str])
    components = msgspec.convert(whole["components"], dict[str, dict[str, object]])
    for kind in ("channels", "operations", "servers"):
        for name in whole.get(kind, {}):
            assert f"{kind[:-1]}-{name}" in read.ids
    for kind in ("messages", "schemas"):
        for name in components[kind]:
            assert f"{kind[:-1]}-{name}" in read.ids
    assert len(read.links) > 10
    assert {unquote(link.removeprefix("#")) for link in read.links} <= set(read.ids)


def test_nothing_is_fetched_and_no_script_runs() -> None:
    read = Reading(page(contracts()))
    assert all(link.startswith("#") for link in read.links)
    assert read.tags & {"script", "link", "img", "iframe", "object", "embed", "base"} == set()
    assert read.attributes <= {"id", "href", "class", "charset", "name", "content", "lang"}
    assert "url(" not in read.style
    assert "@import" not in read.style


def test_types_rules_examples_and_delivery_are_told() -> None:
    read = Reading(page(service()))
    for said in ("string (date-time)", "length ≥ 1", "≥ 0", 'always "brain_request"', "required"):
        assert said in read.texts, said
    for said in ("workers", "agent.brain.request.reply", "odd.{name}", "1.2.3"):
        assert said in read.texts, said
    assert any('"user_input": "text"' in text for text in read.texts)


def test_every_text_of_a_service_is_escaped() -> None:
    kind = msgspec.defstruct("Bad", [("x", str)], namespace={"__doc__": BAD})
    contract = Contract(destination="a.b", payload=kind, event_type="<i>")
    made = page(document([contract], title=BAD, version=BAD, description=BAD))
    read = Reading(made)
    assert read.tags & {"script", "i"} == set()
    assert read.texts.count(BAD) >= 3
    assert made.count("<script") == 0


def test_the_command_writes_it_to_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["asyncapi", "--html", str(file)])
    assert ended.value.code in (0, None)
    assert "channel-agent.brain.request" in Reading(file.read_text(encoding="utf-8")).ids
    assert capsys.readouterr().out == ""

    with pytest.raises(SystemExit) as refused:
        main(["asyncapi", "--html", str(tmp_path / "nowhere" / "page.html")])
    assert refused.value.code not in (0, None)
    assert "cannot be written" in capsys.readouterr().err.replace("\n", " ")


def test_a_browser_draws_it(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium here: apt-get install chromium, and the page is drawn as well")
    (tmp_path / "page.html").write_text(page(service()), encoding="utf-8")
    picture = tmp_path / "page.png"
    run = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,800"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}"),
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000, "an empty page is smaller"
