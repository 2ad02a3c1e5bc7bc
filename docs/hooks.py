"""What mkdocs needs to know of these pages: code blocks that are files, and a site of its own."""

from __future__ import annotations

import re

from mkdocs.exceptions import PluginError

_FILE = re.compile(r"^```(\w+) ([\w.-]+)$", re.MULTILINE)
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Give a block that names a file that name as its title, and a fragment none."""
    return _FILE.sub(
        lambda found: (
            f"```{found[1]}" if found[2] == "fragment" else f'```{found[1]} title="{found[2]}"'
        ),
        markdown,
    )


def on_post_page(output: str, page: object, **_: object) -> str:
    """Refuse a page that would fetch anything from another host."""
    found = [tag for tag in _FETCHED.findall(output) if 'rel="canonical"' not in tag]
    if found:
        raise PluginError(f"{page} fetches from another host: {found[0]}")
    return output
