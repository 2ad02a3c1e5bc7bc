"""Fuzz at length: `make fuzz N=1000000 SEED=7`, so many inputs through each target.

Where atheris is installed (a development dependency on Linux) it is guided by what each input
covers in our own modules; elsewhere inputs are mutations of the seeds, chosen by `SEED`. Each
target runs in a process of its own, two at a time. The exit code is 1 if anything was found; the
input is printed and kept.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
LONGEST = 4096
OURS = ["arc_bus", "arc_inmemory", "arc_nats", "arc_pulsar"]


def guided(name: str, count: int, seed: int, folder: Path) -> None:
    """Give this process to atheris, which ends it."""
    import atheris
    from seeds import SEEDS

    with atheris.instrument_imports(include=OURS):
        from targets import TARGETS
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(data)
    options = [f"-runs={count}", f"-seed={seed}", f"-max_len={LONGEST}", "-verbosity=0"]
    options += ["-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={HERE}/found-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


def unguided(name: str, count: int, seed: int) -> None:
    """Run mutations of the seeds."""
    from mutate import mutated
    from seeds import SEEDS
    from targets import TARGETS

    dice, target = random.Random(seed), TARGETS[name]
    for _ in range(count):
        data = mutated(dice, SEEDS[name])[:LONGEST]
        try:
            target(data)
        except BaseException:
            (HERE / f"found-{name}").write_bytes(data)
            print(f"{name}: raised for {data!r}", file=sys.stderr)
            raise


def child(name: str, count: int, seed: int) -> None:
    """Fuzz one target in this process."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        unguided(name, count, seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        guided(name, count, seed, Path(folder))


def fuzz(name: str, count: int, seed: int) -> bool:
    """Fuzz one target in another process, print what came of it, and return whether all is well."""
    command = [sys.executable, __file__, "--child", name, "-n", str(count), "--seed", str(seed)]
    began = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    took = time.monotonic() - began
    well = done.returncode == 0
    verdict = "nothing found" if well else "FOUND SOMETHING"
    print(f"{name:14} {count:>10,} inputs  {took:6.0f} s  {verdict}", flush=True)
    if not well:
        print(done.stdout[-3000:], done.stderr[-6000:], flush=True)
    return well


def main() -> None:
    """Fuzz what was asked for."""
    from targets import TARGETS

    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("-n", type=int, default=100_000, help="inputs for each target")
    asked.add_argument("--seed", type=int, default=random.randrange(2**31))
    asked.add_argument("--child", help=argparse.SUPPRESS)
    asked.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all of them")
    said = asked.parse_args()
    if said.child:
        child(said.child, said.n, said.seed)
        return
    print(f"seed {said.seed}", flush=True)
    with ThreadPoolExecutor(2) as pool:
        names = said.targets or list(TARGETS)
        results = list(pool.map(lambda name: fuzz(name, said.n, said.seed), names))
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
