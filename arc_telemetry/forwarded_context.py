"""ForwardedContext: the context of a handler whose message nobody records, filled once read."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from opentelemetry.context import Context

from arc_telemetry.forwarded import CURRENT, ForwardedSpan


class ForwardedContext(Context):
    """A context in which the span that a message's headers name is the current one.

    Most handlers never ask for it, so making it must cost nothing: `headers` is set, and whoever
    reads it first, by whichever method, makes the span. After that it is a `Context` as any other.
    """

    __slots__ = ("headers",)
    headers: Mapping[str, str] | None

    def _fill(self) -> None:
        if self.headers is not None:
            span, self.headers = ForwardedSpan(self.headers), None
            dict[str, object].__setitem__(self, CURRENT, span)  # a Context's own refuses

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, as `dict.get`."""
        self._fill()
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._fill()
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._fill()
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return super().__iter__()

    def __len__(self) -> int:
        self._fill()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._fill()
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> dict[str, Any]:
        """Return a plain copy, as `dict.copy`."""
        self._fill()
        return super().copy()

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """As `dict.keys`."""
        self._fill()
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """As `dict.values`."""
        self._fill()
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """As `dict.items`."""
        self._fill()
        return super().items()
