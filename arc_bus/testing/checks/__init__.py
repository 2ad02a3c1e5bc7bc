"""The checks, one module for each row of the published list, and their table."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from arc_bus.testing.check import Check
from arc_bus.testing.checks import (
    brokers,
    closing,
    content,
    declared,
    delivery,
    flow,
    groups,
    handling,
    keeping,
    leases,
    order,
    processes,
    publishing,
    requests,
    settling,
    stopping,
    wildcards,
)

_MODULES = (
    publishing,
    delivery,
    order,
    settling,
    leases,
    groups,
    wildcards,
    flow,
    content,
    closing,
    requests,
    keeping,
    declared,
    handling,
    stopping,
)


def _of(*modules: ModuleType) -> tuple[Check, ...]:
    return tuple(
        found for module in modules for found in vars(module).values() if isinstance(found, Check)
    )


CHECKS: Final = _of(*_MODULES)
"""Every check of this version, in the order of the list; `PINNED` says which these must be."""

FAULTS: Final = _of(processes, brokers)
"""The checks that break a broker or a client's process; `PINNED_FAULTS` lists them."""
