"""Change: what differs between two versions of the contracts, and whether it breaks a peer.

Services are not deployed all at once, so both directions count: a new reader must understand an
old publisher, and an old reader a new publisher. What keeps both is a new optional field, a new
channel, and other words; everything else is breaking and belongs on a new topic (contracts).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TypeAlias, cast

import msgspec

from arc_bus.errors import ConfigError

Node: TypeAlias = Mapping[str, object]

_WORDS = frozenset({"title", "description", "examples", "summary", "$comment"})
"""What of a schema is for people: no reader decides by it."""

_SEEN_APART = frozenset({"properties", "required", "items", "anyOf", "$ref"}) | _WORDS


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: where it is, what it is, and whether it is breaking."""

    where: str
    what: str
    breaking: bool = True


def breaking(old: Node, new: Node) -> list[Change]:
    """Return only those changes from `old` to `new` that break a peer; see `compare`."""
    return [change for change in compare(old, new) if change.breaking]


def compare(old: Node, new: Node) -> list[Change]:
    """Return what differs between two AsyncAPI 3.0 documents, such as `asyncapi.document` makes.

    Channels are told apart by their keys, messages by their payload schemas. Operations, servers
    and texts are no part of the contracts and are not compared. Raises ConfigError for what is no
    such document.
    """
    for document in (old, new):
        if not str(document.get("asyncapi", "")).startswith("3."):
            raise ConfigError(
                f"not an AsyncAPI 3 document: 'asyncapi' is {document.get('asyncapi')!r};"
                " write one with arc_bus.asyncapi.document"
            )
    changes: list[Change] = []
    before, after = _node(old, "channels"), _node(new, "channels")
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            changes.append(Change(where=name, what="channel removed"))
        elif name not in before:
            changes.append(Change(where=name, what="channel added", breaking=False))
        else:
            changes += _channel(name, (old, _node(before, name)), (new, _node(after, name)))
    return changes


def _channel(name: str, old: tuple[Node, Node], new: tuple[Node, Node]) -> Iterator[Change]:
    (old_root, before), (new_root, after) = old, new
    for key in ("address", "x-partition-key", "x-partitions"):
        if before.get(key) != after.get(key):
            what = f"{key} {before.get(key)!r} became {after.get(key)!r}"
            yield Change(where=name, what=what)
    if before.get("bindings") != after.get("bindings"):
        yield Change(where=name, what="settings of the topic changed", breaking=False)
    schemas = [
        [
            _node(_resolved(root, cast("Node", message)), "payload")
            for message in _node(channel, "messages").values()
        ]
        for root, channel in (old, new)
    ]
    if len(schemas[0]) != len(schemas[1]):
        yield Change(where=name, what="the number of its messages changed")
        return
    for one, other in zip(*schemas, strict=True):
        yield from _Comparison(old_root, new_root).schemas(name, one, other)


class _Comparison:
    """Compares schemas of two documents, following references once each."""

    def __init__(self, old: Node, new: Node) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str]] = set()

    def schemas(self, where: str, old: Node, new: Node) -> Iterator[Change]:
        """Yield the changes of one schema and of what is within it."""
        pair = (str(old.get("$ref", "")), str(new.get("$ref", "")))
        if all(pair):
            if pair in self._seen:
                return
            self._seen.add(pair)
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        rules = [_canonical(_rules(schema)) for schema in (old, new)]
        if rules[0] != rules[1]:
            yield Change(where=where, what=f"{rules[0]} became {rules[1]}")
        yield from self._properties(where, old, new)
        if "items" in old and "items" in new:
            yield from self.schemas(f"{where}[]", _node(old, "items"), _node(new, "items"))
        elif "items" in old or "items" in new:
            yield Change(where=where, what="the rule for its items was added or removed")
        yield from self._options(where, old, new)

    def _properties(self, where: str, old: Node, new: Node) -> Iterator[Change]:
        before, after = _node(old, "properties"), _node(new, "properties")
        needed = [set(cast("list[str]", s.get("required", []))) for s in (old, new)]
        for name in sorted(before.keys() | after.keys()):
            field = f"{where}.{name}"
            if name not in after:
                yield Change(where=field, what="field removed")
            elif name not in before:
                optional = name not in needed[1]
                kind = "optional" if optional else "required"
                yield Change(where=field, what=f"{kind} field added", breaking=not optional)
            else:
                if (name in needed[0]) != (name in needed[1]):
                    now = "required" if name in needed[1] else "optional"
                    yield Change(where=field, what=f"field became {now}")
                yield from self.schemas(field, _node(before, name), _node(after, name))

    def _options(self, where: str, old: Node, new: Node) -> Iterator[Change]:
        """Compare alternatives: groups with groups in their order, plain types as a set."""
        before, after = (cast("list[Node]", s.get("anyOf", [])) for s in (old, new))
        groups = [[option for option in options if "$ref" in option] for options in (before, after)]
        plain = [
            {_canonical(_bare(option)) for option in options if "$ref" not in option}
            for options in (before, after)
        ]
        if len(groups[0]) != len(groups[1]) or plain[0] != plain[1]:
            told = [", ".join(sorted(kinds)) or "nothing" for kinds in plain]
            yield Change(where=where, what=f"its alternatives {told[0]} became {told[1]}")
            return
        for one, other in zip(*groups, strict=True):
            yield from self.schemas(where, one, other)


def _rules(schema: Node) -> Node:
    """Return what `schema` demands of one value itself, the values of an enum in no order."""
    rules = {key: value for key, value in schema.items() if key not in _SEEN_APART}
    if isinstance(values := rules.get("enum"), list):
        rules["enum"] = sorted(map(_canonical, cast("list[object]", values)))
    return rules


def _resolved(root: Node, node: Node) -> Node:
    """Return what `node` refers to within its document, or `node` itself (RFC 6901 pointers)."""
    while isinstance(reference := node.get("$ref"), str):
        found = root
        for step in reference.removeprefix("#/").split("/"):
            found = _node(found, step.replace("~1", "/").replace("~0", "~"))
        if not found:
            raise ConfigError(f"the document has nothing at {reference!r}")
        node = found
    return node


def _bare(value: object) -> object:
    """Return `value` without what is for people."""
    if isinstance(value, Mapping):
        node = cast("Mapping[str, object]", value)
        return {key: _bare(inner) for key, inner in node.items() if key not in _WORDS}
    if isinstance(value, list):
        return [_bare(inner) for inner in cast("list[object]", value)]
    return value


def _canonical(value: object) -> str:
    return json.dumps(_bare(value), sort_keys=True, ensure_ascii=False)


def _node(parent: Node, key: str) -> Node:
    return cast("Node", parent.get(key, {}))
