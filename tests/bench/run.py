"""`make bench`: ours against the bare clients and FastStream, in one run, as ratios with budgets.

Prints a table and writes build/bench.json: rows of name, ours, against, ratio, budget, met, rounds.
A missed budget is said, and is no failure: timings never are. `--quick` takes fewer messages and
leaves uvloop out, to end in about a minute; `--only WORD` takes the groups named so.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

GROUPS = (
    "memory_rows",
    "nats_rows",
    "jetstream_rows",
    "pulsar_rows",
    "store",
    "telemetry",
    "telemetry_faults",
)
ON_UVLOOP = ("nats_rows", "jetstream_rows")


def take(group: str, *, quick: bool, fast_loop: bool) -> list[dict[str, Any]]:
    """Run one group of rows on its own event loop."""
    rows = importlib.import_module(group).rows
    if not inspect.iscoroutinefunction(rows):
        found: list[dict[str, Any]] = rows(quick)
        return found
    return uvloop.run(rows(quick, loop="uvloop")) if fast_loop else asyncio.run(rows(quick))


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("path", "ours", "against", "", "ratio", "(min-max)", "budget", "met")
    marks = {True: "[green]yes", False: "[red]no", None: ""}
    for r in rows:
        unit = r.get("unit", "")
        spread = r.get("spread") or ["", ""]
        table.add_row(
            r["name"],
            f"{r['ours']:,.0f} {unit}" if r["ours"] >= 100 else f"{r['ours']:.3g} {unit}",
            f"{r['against']:,.0f}" if r["against"] >= 100 else f"{r['against']:.3g}",
            str(r.get("against_name", "")),
            f"{r['ratio']:.2f}",
            f"{spread[0]}-{spread[1]}",
            str(r["budget"] or ""),
            marks[r["met"]],
        )
    Console(width=170).print(table)


def main() -> None:
    """Take the groups, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    begun = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for group in GROUPS:
        if asked.only not in group:
            continue
        rows += take(group, quick=asked.quick, fast_loop=False)
        if group in ON_UVLOOP and not asked.quick:
            rows += take(group, quick=asked.quick, fast_loop=True)
    show(rows)
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    budgeted = [r for r in rows if r["met"] is not None]
    met = sum(r["met"] for r in budgeted)
    print(f"{met} of {len(budgeted)} budgets met, in {time.perf_counter() - begun:.0f} s; {out}")


if __name__ == "__main__":
    main()
