"""C: what a message may hold."""

from __future__ import annotations

from arc_bus.errors import PayloadTooLarge
from arc_bus.testing.check import NotConforming, check
from arc_bus.testing.client import Draft
from arc_bus.testing.lab import Lab
from arc_bus.testing.need import UNICODE_HEADERS
from arc_bus.transport import Delivery, Outgoing

_DEAD_LETTERS = 2 * 1024
"""Bytes of headers that a dead letter may have more than its original."""


async def _carry(lab: Lab, *drafts: Draft) -> list[tuple[Outgoing, Delivery]]:
    """Publish each draft; return what was sent with what arrived."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject)
    sent = [await client.publish(subject, draft) for draft in drafts]
    await lab.all_arrived()
    arrived = {delivery.id: delivery for delivery in consumer.received}
    return [(outgoing, arrived[outgoing.id]) for outgoing in sent]


async def _carry_headers(lab: Lab, *headers: dict[str, str]) -> None:
    for sent, arrived in await _carry(lab, *(Draft(headers=each) for each in headers)):
        for name, value in sent.headers.items():
            got = arrived.headers.get(name)
            lab.expect(got == value, f"header {name!r}: {value!r} arrived as {got!r}")


@check("C1")
async def any_bytes(lab: Lab) -> None:
    """C1: A body arrives byte for byte: NUL, CR LF, not UTF-8, nothing at all, up to 64 KiB."""
    blocks = min(256, lab.capabilities.max_payload // 512)
    bodies = (b"", b"\0", b"a\0b\r\nc\r\n\r\n", b"\xff\xfe\x80", bytes(range(256)) * blocks)
    for sent, arrived in await _carry(lab, *(Draft(body=body) for body in bodies)):
        lab.expect(
            arrived.body == sent.body, f"{sent.body[:40]!r} arrived as {arrived.body[:40]!r}"
        )


@check("C2")
async def up_to_the_limit(lab: Lab) -> None:
    """C2: The declared size is carried; one byte more raises PayloadTooLarge, and harms nothing."""
    limit = lab.capabilities.max_payload
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    await client.publish(subject, Draft(body=b"x" * limit))
    try:
        await client.publish(subject, Draft(body=b"x" * (limit + 1)))
    except PayloadTooLarge as error:
        lab.expect(str(limit) in str(error), f"the error does not name the limit: {error}")
    else:
        raise NotConforming(f"{limit + 1} bytes were accepted; the declared limit is {limit}")
    await client.publish(subject, Draft(body=b"small"))
    await lab.all_arrived()
    sizes = [len(delivery.body) for delivery in consumer.received]
    lab.expect(sizes == [limit, 5], f"bodies of {sizes} bytes arrived")


@check("C2b")
async def headers_at_the_limit(lab: Lab) -> None:
    """C2b: Beside a body of the declared size there is room for the headers of a dead letter."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    limit = lab.capabilities.max_payload
    for spare in (_DEAD_LETTERS, 100, 0):
        headers = {"filling": "y" * (_DEAD_LETTERS - len("filling"))}
        await client.publish(subject, Draft(body=b"x" * (limit - spare), headers=headers))
    await lab.all_arrived()
    got = [(len(delivery.body), len(delivery.headers["filling"])) for delivery in consumer.received]
    lab.expect(
        [size for size, _ in got] == [limit - _DEAD_LETTERS, limit - 100, limit]
        and len({length for _, length in got}) == 1,
        f"bodies and headers of {got} bytes arrived",
    )


@check("C3")
async def ascii_headers(lab: Lab) -> None:
    """C3: Printable ASCII header values survive: empty, padded, with colons, a hundred, 4 KiB."""
    await _carry_headers(
        lab,
        {"empty": "", "colon": "a: b:c", "quoted": "\"x\", 'y'; z=1", "percent": "%20%0D%0A"},
        {"padded": "  both ends  ", "inner": "a  b"},
        {f"number-{number}": str(number) for number in range(100)},
        {"long": "x" * 4096, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
    )


@check("C3b", UNICODE_HEADERS)
async def unicode_headers(lab: Lab) -> None:
    """C3b: Unicode header values survive."""
    await _carry_headers(lab, {"greeting": "grüß Gott", "sign": "☕ 你好 🎉", "accent": "e\u0301"})


@check("C3c")
async def header_names(lab: Lab) -> None:
    """C3c: Header names arrive in lower case, all of HTTP's token characters among them."""
    await _carry_headers(lab, {"a!#$&'*+.^_`|~-9": "tokens", "x-long-" + "n" * 100: "long"})


@check("C6")
async def identity(lab: Lab) -> None:
    """C6: Message id and key survive, whatever is allowed in them; no key stays no key."""
    drafts = (
        Draft(id=lab.new_id() + "_.:=@+/-Z", key="user-1"),
        Draft(id=(lab.new_id() + "-").ljust(128, "9"), key="a b/c"),
        Draft(),
    )
    for sent, arrived in await _carry(lab, *drafts):
        lab.expect(arrived.id == sent.id, f"id {sent.id!r} arrived as {arrived.id!r}")
        lab.expect(arrived.key == sent.key, f"key {sent.key!r} arrived as {arrived.key!r}")


@check("C7")
async def nothing_is_added(lab: Lab) -> None:
    """C7: A message without headers arrives without: id and key are no headers, nor a reply."""
    for _, arrived in await _carry(lab, Draft(), Draft(key="k")):
        lab.expect(not dict(arrived.headers), f"headers arrived: {dict(arrived.headers)}")
        lab.expect(arrived.reply_to is None, f"reply_to is {arrived.reply_to!r}")
        lab.expect(arrived.attempt == 1, f"the first delivery is attempt {arrived.attempt}")
        lab.expect(arrived.verdict is None, f"settled unasked as {arrived.verdict}")


@check("C8")
async def a_publisher_may_reuse_its_mapping(lab: Lab) -> None:
    """C8: What a publisher does to its headers after publish() does not reach any reader."""
    client = await lab.client()
    subject = lab.subject()
    consumer = await client.consume(subject, eager=True)
    headers = {"colour": "red"}
    await client.publish(subject, Draft(headers=headers))
    headers["colour"] = "blue"
    await lab.all_arrived()
    got = consumer.received[0].headers.get("colour")
    lab.expect(got == "red", f"published with 'red', delivered with {got!r}")


@check("C9")
async def eight_levels(lab: Lab) -> None:
    """C9: Long destinations with every allowed character work."""
    client = await lab.client()
    subject = lab.subject("A-Za-z0-9_%41-" + "x" * 40)
    await client.consume(subject, eager=True)
    await client.publish_in_turn(subject, 3)
    await lab.all_arrived()
