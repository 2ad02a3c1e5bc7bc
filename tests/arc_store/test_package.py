"""Finding the plugin loads nothing; every public name is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import arc_store


def test_every_public_name_can_be_imported() -> None:
    assert arc_store.DIMENSIONS == 1536
    for name in set(arc_store.__all__) - {"DIMENSIONS"}:
        assert getattr(arc_store, name).__module__.startswith("arc_store")
    with pytest.raises(AttributeError, match="nonsense"):
        arc_store.nonsense  # noqa: B018


def test_importing_the_package_loads_no_library() -> None:
    code = (
        "import sys, arc_store;"
        "heavy = {'sqlalchemy', 'psycopg', 'alembic', 'asyncpg', 'aiosqlite', 'cyclopts'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_loads_alembic_only_to_migrate() -> None:
    code = (
        "import sys; from arc_store import Store; Store('sqlite://');"
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_missing_library_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "try:\n    from arc_store import Store\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtra")
    assert "arc-bus[store]" in done.stdout


@pytest.mark.parametrize(
    ("library", "extra", "url"),
    [
        ("asyncpg", "asyncpg", "postgresql+asyncpg://localhost/arc"),
        ("aiosqlite", "sqlite", "sqlite://"),
        ("psycopg", "store", "postgresql://localhost/arc"),
    ],
)
def test_a_missing_driver_names_its_extra(library: str, extra: str, url: str) -> None:
    code = (
        f"import sys; sys.modules['{library}'] = None\n"
        f"from arc_store import Store\ntry:\n    Store('{url}')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtra")
    assert f"arc-bus[{extra}]" in done.stdout
