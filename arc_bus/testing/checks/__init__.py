"""The checks, one module for each row of the published list, and their table."""

from __future__ import annotations

from typing import Final

from arc_bus.testing.check import Check
from arc_bus.testing.checks import (
    closing,
    content,
    declared,
    delivery,
    flow,
    groups,
    keeping,
    leases,
    order,
    publishing,
    requests,
    settling,
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
)

CHECKS: Final[tuple[Check, ...]] = tuple(
    found for module in _MODULES for found in vars(module).values() if isinstance(found, Check)
)
"""Every check of this version, in the order of the list; `PINNED` says which these must be."""
