"""`arc-bus new`: the beginnings of a service, which run as they are."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from cyclopts import App

from arc_bus.cli import show
from arc_bus.cli.common import AsJson
from arc_bus.errors import ConfigError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")

_PLACES: Final = {
    "pyproject.toml": "pyproject.toml",
    "arc.toml": "arc.toml",
    "README.md": "README.md",
    "package.py": "{package}/__init__.py",
    "contracts.py": "{package}/contracts.py",
    "service.py": "{package}/service.py",
    "main.py": "{package}/main.py",
    "test_service.py": "tests/test_service.py",
}
"""Template, and where it goes."""

app = App(name="new", help="Make the beginnings of something.")


@app.command
def service(name: str, /, *, into: Path = Path(), json: AsJson = False) -> None:
    """Make a folder NAME with a small service: one handler, its contracts, routes and tests.

    Parameters
    ----------
    into
        The folder in which NAME is made; by default this one.
    """
    if not _NAME.match(name):
        raise ConfigError(f"service name {name!r}: small letters and digits, joined by single -")
    folder = into / name
    if folder.exists():
        raise ConfigError(f"{str(folder)!r} is there already; choose another name or --into")
    package = name.replace("-", "_")
    written: list[Path] = []
    for template, place in _PLACES.items():
        text = (files("arc_bus.cli") / "scaffold" / f"{template}.tmpl").read_text(encoding="utf-8")
        path = folder / place.format(package=package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(name=name, package=package), encoding="utf-8")
        written.append(path)
    rows = [{"file": str(path)} for path in written]
    show.rows(rows, as_json=json)
    show.line(f"cd {folder} && pytest; its README.md says how to run it")
