"""perform: one check on one transport, in an event loop of its own."""

from __future__ import annotations

import asyncio

from arc_bus.testing.check import Check, NotConforming, Outcome, Result
from arc_bus.testing.harness import Harness
from arc_bus.testing.lab import Lab
from arc_bus.transport import Capabilities


def perform(check: Check, harness: Harness) -> Result:
    """Try `check` on the harness's transport; return what came of it, never raise for that.

    Every check is judged by the whole history as well: whatever it is about, a phantom, an
    unexplained duplicate or an inversion fails it.
    """
    capabilities: Capabilities | None = None

    def result(outcome: Outcome, detail: str = "", error: BaseException | None = None) -> Result:
        return Result(
            id=check.id,
            name=check.name,
            sentence=check.sentence,
            outcome=outcome,
            detail=detail,
            error=error,
            capabilities=capabilities,
        )

    with asyncio.Runner(loop_factory=harness.loop_factory) as runner:
        try:
            runner.run(harness.prepare())
            transport = harness.connect()
            capabilities = getattr(type(transport), "capabilities", transport.capabilities)
            # Only a transport that was made with its URL and options knows what it can do.
            missing = check.missing(transport.capabilities)
            if missing is not None:
                return result(Outcome.NOT_APPLICABLE, missing)
            runner.run(_experiment(check, harness, transport.capabilities))
        except NotConforming as error:
            return result(Outcome.FAIL, str(error), error)
        # What a transport raises unexpectedly is a result of the check, whatever its type.
        except Exception as error:
            return result(Outcome.FAIL, f"{type(error).__name__}: {error}", error)
        finally:
            runner.run(harness.cleanup())
    return result(Outcome.PASS)


async def _experiment(check: Check, harness: Harness, capabilities: Capabilities) -> None:
    lab = Lab(harness, capabilities)
    patience = lab.timings.check + 5 * (lab.capabilities.ack_deadline or 0.0)
    try:
        async with asyncio.timeout(patience):
            await _run_and_close(check, lab)
    except TimeoutError as error:
        raise NotConforming(f"the check ran into a time-out; it has {patience} s") from error
    lab.judge()


async def _run_and_close(check: Check, lab: Lab) -> None:
    try:
        await check.run(lab)
    except Exception as error:
        try:
            await lab.close()
        except Exception as second:
            error.add_note(f"and stopping after it raised {second!r}")
        raise
    await lab.close()
