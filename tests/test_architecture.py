"""The house rules a machine can check: arrows, cycles, exports, docstrings, sizes, imports."""

# Over 300 lines: one reading of the source tree serves every rule.

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {
    "arc_bus": ROOT,
    "arc_store": ROOT,
    "arc_telemetry": ROOT,
    "arc_inmemory": ROOT / "plugins",
    "arc_nats": ROOT / "plugins",
    "arc_pulsar": ROOT / "plugins",
}
CORE_DEPENDENCIES = {"msgspec", "pluggy"}

# Parts of arc_bus that nothing else of it imports at import time, with the library each stands on.
EDGES = {"arc_bus.cli": {"cyclopts", "rich"}, "arc_bus.testing": {"pytest"}}

CLIENT_LIBRARIES = {
    *("nats", "pulsar", "_pulsar", "sqlalchemy", "psycopg", "alembic", "pgvector"),
    *("opentelemetry", "grpc", "numpy", "rich", "cyclopts", "pytest", "_pytest", "uvloop"),
}
LONGEST = 300  # lines


@dataclass(frozen=True)
class Import:
    """One imported module, as written in `source`."""

    source: str
    target: str
    line: int
    eager: bool  # runs when the module is imported: not in a function, not for type checkers only


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def tree(self) -> ast.Module:
        return _tree(self.path)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Module]:
    found: dict[str, Module] = {}
    for top, home in HOMES.items():
        for path in sorted((home / top).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path)
    return found


def _nodes(tree: ast.AST, eager: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield child, False
                yield from _nodes(child, False)
            continue
        yield node, eager
        inside = eager and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _nodes(node, inside)


def imports_of(module: Module) -> Iterator[Import]:
    for node, eager in _nodes(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, node.lineno, eager)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = full if full in modules() else node.module
                yield Import(module.name, target, node.lineno, eager)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for module in modules().values() for found in imports_of(module))


def top(name: str) -> str:
    return name.partition(".")[0]


def where(found: Import) -> str:
    path = modules()[found.source].path.relative_to(ROOT)
    return f"{path}:{found.line} imports {found.target}"


def test_arrows_point_at_the_core_and_never_between_plugins() -> None:
    wrong = [
        where(found)
        for found in all_imports()
        if top(found.target) in HOMES
        and top(found.target) != top(found.source)
        and top(found.target) != "arc_bus"
    ]
    assert not wrong, "\n".join(wrong)


def test_core_imports_only_its_two_dependencies() -> None:
    allowed = sys.stdlib_module_names | CORE_DEPENDENCIES | {"arc_bus"}
    wrong = [
        where(found)
        for found in all_imports()
        if top(found.source) == "arc_bus"
        and found.eager
        and top(found.target) not in allowed
        and not any(
            found.source.startswith(edge) and top(found.target) in libraries
            for edge, libraries in EDGES.items()
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_an_edge_at_import_time() -> None:
    wrong = [
        where(found)
        for found in all_imports()
        for edge in EDGES
        if found.eager and found.target.startswith(edge) and not found.source.startswith(edge)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for found in all_imports():
        if found.eager and found.target in graph and found.target != found.source:
            graph[found.source].add(found.target)
    assert _cycle(graph) == []


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of `graph`, or an empty list."""
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(graph[name]):
            found = visit(target)
            if found:
                return found
        done.add(path.pop())
        return []

    for name in graph:
        found = visit(name)
        if found:
            return found
    return []


def test_cycle_finder_finds_one() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def packages() -> list[str]:
    return [name for name, module in modules().items() if module.path.name == "__init__.py"]


def exporting() -> list[str]:
    """The packages with an `__all__`."""
    return [name for name in packages() if "__all__" in _bound(modules()[name].tree)]


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that assignments at a module's top level bind."""
    names: set[str] = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _public(module: Module) -> set[str]:
    """Return the names without underscore that a package defines, or imports from itself.

    Hook implementations are not exports: pluggy finds them by their decorator.
    """
    names = _bound(module.tree)
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not any("hookimpl" in ast.unparse(mark) for mark in node.decorator_list):
                names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and top(node.module or "") == top(module.name):
            names |= {alias.asname or alias.name for alias in node.names}
    return {name for name in names if not name.startswith("_")}


def test_packages_that_others_import_say_what_they_export() -> None:
    must = {"arc_bus", "arc_bus.contracts", "arc_bus.servers", "arc_bus.testing"}
    must |= {"arc_store", "arc_telemetry"}
    assert must <= set(exporting())


@pytest.mark.parametrize("name", exporting())
def test_all_is_exactly_the_public_names(name: str) -> None:
    package = importlib.import_module(name)
    exported: list[str] = package.__all__
    assert len(exported) == len(set(exported)), "a name is listed twice"
    missing = _public(modules()[name]) - set(exported)
    assert not missing, f"public in {name}, but not in its __all__: {sorted(missing)}"
    for export in exported:
        assert hasattr(package, export), f"{name}.__all__ names {export}, which is not there"


@pytest.mark.parametrize("name", exporting())
def test_each_exported_name_has_a_docstring(name: str) -> None:
    package = importlib.import_module(name)
    bare = [
        export
        for export in package.__all__
        if inspect.isclass(found := getattr(package, export)) or inspect.isroutine(found)
        if not _documented(found)
    ]
    assert not bare, f"exported by {name} without a docstring: {bare}"


def _documented(found: object) -> bool:
    text = vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__
    # A dataclass without one is given its signature as docstring.
    return bool(text) and not str(text).startswith(f"{getattr(found, '__name__', '')}(")


@pytest.mark.parametrize("name", sorted(modules()))
def test_each_module_has_a_docstring(name: str) -> None:
    assert ast.get_docstring(modules()[name].tree)


def imported_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    script = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    return {top(name) for name in json.loads(done.stdout)}


def test_importing_the_core_loads_no_client_library() -> None:
    assert not imported_by("import arc_bus") & CLIENT_LIBRARIES


def test_importing_the_core_loads_no_plugin() -> None:
    assert not imported_by("import arc_bus") & (HOMES.keys() - {"arc_bus"})


@pytest.mark.parametrize("name", ["arc_inmemory", "arc_nats", "arc_pulsar", "arc_bus.servers"])
def test_importing_a_transport_plugin_loads_no_client_library(name: str) -> None:
    assert not imported_by(f"import {name}") & CLIENT_LIBRARIES


def python_files() -> list[Path]:
    folders = [*{home / name for name, home in HOMES.items()}, ROOT / "tests", ROOT / "examples"]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def test_a_long_file_says_why() -> None:
    """A comment in its first 30 lines, such as `# Over 300 lines, because …`."""
    wrong: list[str] = []
    for path in python_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        said = any(re.search(rf"#.*\b{LONGEST} lines\b", line) for line in lines[:30])
        if len(lines) > LONGEST and not said:
            wrong.append(f"{path.relative_to(ROOT)} has {len(lines)} lines")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", ["plugins", "tests"])
def test_folders_that_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("name", sorted(HOMES))
def test_each_package_is_marked_as_typed(name: str) -> None:
    assert (HOMES[name] / name / "py.typed").exists()


def test_no_registry_and_no_machine_path_is_committed() -> None:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    lock = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    assert "--index-url" not in lock
    assert "://" not in lock
    unpinned = [line for line in lock.splitlines() if re.match(r"[a-z]", line) and "==" not in line]
    assert not unpinned
