"""Transports with one fault each, which prove that the conformance kit can fail.

Each stands round a sound transport. A check that no mutant fails may be one that cannot fail; a
mutant that no check fails shows what the kit does not see.
"""

from __future__ import annotations

from typing import Final

from arc_bus.testing.mutants import (
    carrying,
    closing,
    declaring,
    delivering,
    keeping,
    leasing,
    publishing,
    requesting,
    settling,
    sharing,
)
from arc_bus.testing.mutants.mutant import Mutant

_MODULES = (
    publishing,
    delivering,
    settling,
    leasing,
    sharing,
    carrying,
    closing,
    requesting,
    keeping,
    declaring,
)

MUTANTS: Final[tuple[type[Mutant], ...]] = tuple(
    found
    for module in _MODULES
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Mutant) and hasattr(found, "killed_by")
)
"""Every mutant, with the checks that must kill it in `killed_by`."""
