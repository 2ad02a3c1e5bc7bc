"""An AsyncAPI document as one HTML page: no script, nothing fetched, everything escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import cast
from urllib.parse import quote

import msgspec

from arc_bus.asyncapi import Document
from arc_bus.example import example
from arc_bus.schema import ENVELOPE, Schema

RULES: Mapping[str, str] = {
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "minItems": "items ≥ {}",
    "maxItems": "items ≤ {}",
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "exclusiveMinimum": "> {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "pattern": "pattern {}",
}
"""JSON Schema's keyword, and how the page says it."""


class Html(str):
    """Text that is HTML already; every other text is escaped on its way into the page."""

    __slots__ = ()


def page(document: Document) -> str:
    """Return `document`, as `arc_bus.asyncapi` makes it, as a page complete in itself."""
    info = _part(document, "info")
    title = f"{info['title']} {info['version']}"
    style = (files("arc_bus") / "asyncapi_page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(style)),
    )
    sections = [
        *_sections(document, "servers", "Servers", _server),
        *_sections(document, "operations", "Operations", _operation),
        *_sections(document, "channels", "Channels", _channel),
        *_sections(_part(document, "components"), "messages", "Messages", _message, document),
        *_groups(document),
    ]
    top = element(
        "header",
        element("h1", str(info["title"]), element("small", str(info["version"]))),
        *prose(info.get("description")),
    )
    body = element("body", _contents(document), element("main", top, *sections))
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element; `class_` stands for class."""
    told = "".join(f' {name.rstrip("_")}="{escape(v)}"' for name, v in attributes.items())
    inner = "".join(part if isinstance(part, Html) else escape(part) for part in content)
    return Html(f"<{tag}{told}>{inner}</{tag}>")


def prose(text: object) -> list[Html]:
    """Return a docstring's paragraphs, with what stands in backticks as code."""
    paragraphs = str(text or "").split("\n\n")
    return [element("p", *_words(paragraph)) for paragraph in paragraphs if paragraph.strip()]


def _words(text: str) -> list[str]:
    parts = text.split("`")
    return [element("code", part) if n % 2 else part for n, part in enumerate(parts)]


def _part(node: Mapping[str, object], name: str) -> Document:
    return cast("Document", node.get(name) or {})


def _parts(node: Mapping[str, object], name: str) -> dict[str, Document]:
    return cast("dict[str, Document]", node.get(name) or {})


def _name(reference: Mapping[str, object]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _link(kind: str, name: str, text: str | None = None) -> Html:
    return element("a", text or name, href=f"#{quote(f'{kind}-{name}')}")


def _sections(
    node: Document, key: str, heading: str, show: Callable[..., list[Html]], *more: Document
) -> list[Html]:
    """Return a heading and a section for each entry of `node[key]`, nothing where it has none."""
    entries = _parts(node, key)
    if not entries:
        return []
    kind = key.removesuffix("s")
    each = [
        element("section", *show(name, entry, *(more or (node,))), id=f"{kind}-{name}")
        for name, entry in entries.items()
    ]
    return [element("h2", heading, id=key), *each]


def _contents(document: Document) -> Html:
    """Return the page's own list of what is where."""
    components = _part(document, "components")
    lists: list[Html] = []
    for node, key in ((document, "channels"), (components, "messages"), (document, "operations")):
        names = _parts(node, key)
        if names:
            kind = key.removesuffix("s")
            lines = [element("li", _link(kind, name)) for name in names]
            lists += [element("h2", key.capitalize()), element("ul", *lines)]
    return element("nav", *lists)


def _facts(facts: Iterable[tuple[str, object]]) -> list[Html]:
    """Return a list of what is known; what is None is left out."""
    told = [
        part
        for name, value in facts
        if value is not None
        for part in (
            element("dt", name),
            element("dd", value if isinstance(value, Html) else str(value)),
        )
    ]
    return [element("dl", *told)] if told else []


def _server(name: str, server: Document, _: Document) -> list[Html]:
    where = f"{server['protocol']}://{server['host']}{server.get('pathname', '')}"
    return [element("h3", name), *_facts([("at", element("code", where))])]


def _operation(name: str, operation: Document, document: Document) -> list[Html]:
    action = str(operation["action"])
    channel = _name(_part(operation, "channel"))
    reply = _part(_part(operation, "reply"), "channel")
    queue = _part(_part(operation, "bindings"), "nats").get("queue")
    return [
        element("h3", element("span", action, class_=f"badge {action}"), " ", name),
        *_facts(
            [
                ("channel", _link("channel", channel, _address(document, channel))),
                ("queue group", queue),
                ("subscription", operation.get("x-subscription")),
                ("answers on", _link("channel", _name(reply)) if reply else None),
            ]
        ),
    ]


def _address(document: Document, channel: str) -> str:
    return str(_parts(document, "channels")[channel].get("address") or channel)


def _channel(name: str, channel: Document, document: Document) -> list[Html]:
    pulsar = _part(_part(channel, "bindings"), "pulsar")
    minutes = _part(pulsar, "retention").get("time")
    used = [
        element("li", _link("operation", key))
        for key, operation in _parts(document, "operations").items()
        if _name(_part(operation, "channel")) == name
    ]
    carried = [element("li", _link("message", each)) for each in _parts(channel, "messages")]
    servers = cast("list[Document]", channel.get("servers") or [])
    parameters = _parts(channel, "parameters")
    return [
        element("h3", element("code", _address(document, name))),
        *prose(channel.get("description")),
        *_facts(
            [
                *((f"{{{key}}}", part["description"]) for key, part in parameters.items()),
                ("server", ", ".join(map(_name, servers)) or None),
                ("partitions", channel.get("x-partitions")),
                ("partition key", channel.get("x-partition-key")),
                ("retention", f"{cast('int', minutes) // (24 * 60)} days" if minutes else None),
                ("messages", element("ul", *carried)),
                ("operations", element("ul", *used) if used else None),
            ]
        ),
    ]


def _message(name: str, message: Document, document: Document) -> list[Html]:
    schemas = _parts(_part(document, "components"), "schemas")
    payload = _name(_part(message, "payload"))
    shown = msgspec.json.format(msgspec.json.encode(example(schemas[payload], schemas)), indent=2)
    return [
        element("h3", name),
        *(prose(message.get("summary")) if "description" not in schemas[payload] else []),
        *_schema(payload, schemas[payload]),
        element("h4", "Headers"),
        _fields(_part(message, "headers")),
        element("h4", "Example"),
        element("pre", shown.decode()),
    ]


def _groups(document: Document) -> list[Html]:
    """Return the schemas that are no message's."""
    components = _part(document, "components")
    messages = _parts(components, "messages").values()
    shown = {_name(_part(message, "payload")) for message in messages}
    rest = {k: v for k, v in _parts(components, "schemas").items() if k not in shown}
    sections = [
        element("section", element("h3", name), *_schema(name, schema))
        for name, schema in rest.items()
    ]
    return [element("h2", "Schemas", id="schemas"), *sections] if sections else []


def _schema(name: str, schema: Schema) -> list[Html]:
    """Return what a schema says of itself, and its fields where it is an object."""
    told = prose(schema.get("description"))
    shown = _fields(schema) if "properties" in schema else element("p", *_kind(schema))
    return [element("div", *told, shown, id=f"schema-{name}")]


def _fields(schema: Schema) -> Html:
    """Return the table of an object's fields: the payload's own, then the envelope's."""
    required = cast("list[str]", schema.get("required") or [])
    fields = sorted(
        _parts(schema, "properties").items(), key=lambda item: ENVELOPE.get(item[0]) is not None
    )
    head = element("tr", *(element("th", h) for h in ("Field", "Type", "Rules", "Meaning")))
    rows = [
        element(
            "tr",
            element(
                "td",
                element("code", name),
                *([element("span", "required", class_="required")] if name in required else []),
            ),
            element("td", *_kind(field)),
            element("td", *_rules(field)),
            element("td", *_words(str(field.get("description") or ""))),
            **({"class_": "envelope"} if name in ENVELOPE else {}),
        )
        for name, field in fields
    ]
    return element("table", element("thead", head), element("tbody", *rows))


def _kind(schema: Schema) -> list[str]:
    """Return the type of a field, with links to the schemas that it names."""
    if "$ref" in schema:
        return [_link("schema", _name(schema))]
    if branches := _branches(schema):
        words = [word for branch in branches for word in (" or ", *_kind(branch))]
        return words[1:]
    if schema.get("type") == "array":
        return ["array of ", *_kind(_part(schema, "items"))]
    if isinstance(each := schema.get("additionalProperties"), dict) and each:
        return ["map of ", *_kind(cast("Schema", each))]
    values = cast("list[object]", schema.get("enum") or [None])
    kinds = schema.get("type") or ("string" if isinstance(values[0], str) else "any value")
    text = " or ".join(cast("list[str]", kinds)) if isinstance(kinds, list) else str(kinds)
    return [f"{text} ({schema['format']})" if "format" in schema else text]


def _branches(schema: Schema) -> list[Schema]:
    return cast("list[Schema]", schema.get("anyOf") or schema.get("oneOf") or [])


def _rules(schema: Schema) -> list[Html]:
    """Return what a value must fulfil, also where it is one of several types, or an item."""
    said = [text.format(schema[key]) for key, text in RULES.items() if key in schema]
    if "const" in schema:
        said.append(f"always {_json(schema['const'])}")
    if values := cast("list[object]", schema.get("enum") or []):
        said.append(("one of " if values[1:] else "always ") + ", ".join(map(_json, values)))
    if "default" in schema and schema.get("enum") != [schema["default"]]:
        said.append(f"default {_json(schema['default'])}")
    told = [element("span", text, class_="rule") for text in said]
    inner = [*_branches(schema), *([_part(schema, "items")] if "items" in schema else [])]
    told += [rule for part in inner for rule in _rules(part)]
    return list(dict.fromkeys(told))  # an integer or a number, both of them 0 or more


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
