"""`python -m arc_bus.servers fetch-pulsar`: fetch Apache Pulsar's jars, or say what is missing."""

from __future__ import annotations

import sys

from arc_bus.servers.error import ServerError
from arc_bus.servers.pulsar import fetch_pulsar


def main(arguments: list[str]) -> int:
    """Return 0 when the jars are there, 1 when they cannot be had, 2 for anything else asked."""
    if arguments != ["fetch-pulsar"]:
        print("usage: python -m arc_bus.servers fetch-pulsar", file=sys.stderr)  # noqa: T201
        return 2
    try:
        print(f"Apache Pulsar is in {fetch_pulsar()}")  # noqa: T201
    except ServerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
