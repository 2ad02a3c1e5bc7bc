"""`python -m arc_bus.cli`: the command, where its script is not on the PATH."""

from __future__ import annotations

from arc_bus.cli import main

if __name__ == "__main__":
    main()
