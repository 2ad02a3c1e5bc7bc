"""Ids and times that are fresh, well formed and never shared with a forked child."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from arc_bus import Envelope
from arc_bus.envelope import ENVELOPE_FIELDS, new_message_id, new_trace_id, utc_now


def test_a_message_id_is_a_uuid_of_version_7_with_the_present_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    id = UUID(new_message_id())
    after = time.time_ns() // 1_000_000
    assert str(id) == str(id).lower()
    assert id.version == 7
    assert id.variant == "specified in RFC 4122"
    assert before <= id.int >> 80 <= after


def test_message_and_trace_ids_are_all_different() -> None:
    ids = {new_message_id() for _ in range(20_000)} | {new_trace_id() for _ in range(20_000)}
    assert len(ids) == 40_000


def test_message_ids_sort_by_the_millisecond_they_were_made_in() -> None:
    ids = [new_message_id() for _ in range(5000)]
    assert [id[:13] for id in ids] == sorted(id[:13] for id in ids)


def test_message_ids_sort_in_the_order_they_were_made_and_never_repeat_among_threads() -> None:
    ids = [new_message_id() for _ in range(5000)]
    assert ids == sorted(ids)
    with ThreadPoolExecutor(8) as threads:
        made = threads.map(lambda _: [new_message_id() for _ in range(2000)], range(8))
        traces = threads.map(lambda _: [new_trace_id() for _ in range(2000)], range(8))
        assert len({id for some in made for id in some}) == 16_000
        assert len({id for some in traces for id in some}) == 16_000


def test_a_trace_id_has_32_lower_case_hex_digits() -> None:
    for _ in range(1000):
        assert re.fullmatch(r"[0-9a-f]{32}", new_trace_id())


def test_the_time_is_rfc_3339_in_utc_and_the_present() -> None:
    before = datetime.now(UTC)
    text = utc_now()
    after = datetime.now(UTC)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    cut = before.replace(microsecond=before.microsecond // 1000 * 1000)
    assert cut <= datetime.fromisoformat(text) <= after


def test_the_time_goes_on() -> None:
    first = utc_now()
    deadline = time.monotonic() + 5
    while utc_now() == first:
        assert time.monotonic() < deadline
    assert utc_now() > first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    new_trace_id()  # so that some digits of the block are left
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_trace_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 32).decode()
    os.close(reader)
    os.close(writer)
    assert theirs != new_trace_id()
    assert re.fullmatch(r"[0-9a-f]{32}", theirs)


def test_an_envelope_is_immutable() -> None:
    envelope = Envelope[dict[str, object]](
        destination="a.b", payload={}, timestamp="", trace_id="", service="", message_id=""
    )
    with pytest.raises(AttributeError):
        envelope.service = "other"  # type: ignore[misc]
    assert msgspec.structs.replace(envelope, service="other").service == "other"


def test_the_envelope_s_fields_are_those_of_the_contracts_in_their_order() -> None:
    assert ENVELOPE_FIELDS == ("timestamp", "trace_id", "service", "event_type", "message_id")
    assert set(ENVELOPE_FIELDS) <= set(Envelope.__struct_fields__)
