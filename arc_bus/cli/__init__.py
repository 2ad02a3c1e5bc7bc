"""The `arc-bus` command: what an author and an operator of services live in."""

from __future__ import annotations

import os
import sys

from arc_bus import errors as _errors

__all__ = ["main"]


def main(tokens: list[str] | None = None) -> None:
    """Run the command line `tokens` (default: this process's) and exit.

    Exit code 0 is success, 1 an answer of "not well" (a finding of doctor, a difference of topology
    diff, a breaking change), 2 an error, which goes to stderr in one line, 130 Ctrl-C, and 141 that
    nobody reads what we print any more.
    """
    try:
        try:
            from arc_bus.cli.app import run_tokens
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("arc_bus"):
                raise
            raise _errors.MissingExtra("cli", error.name) from error
        run_tokens(tokens)
    except _errors.ArcBusError as error:
        print(f"arc-bus: {error}", file=sys.stderr)  # noqa: T201 - a command's own output
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # What is still in the buffer would be written, and fail once more, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
