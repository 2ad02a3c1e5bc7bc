"""What we emit, against OpenTelemetry's semantic conventions: the table of the documentation.

`python -m arc_telemetry.conventions` prints it as `docs/telemetry.md` has it; a test holds the
page to it, and it to `names.py` and to what a bus emits.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from arc_telemetry import names

REQUIRED: Final = "required"
CONDITIONAL: Final = "conditionally required"
RECOMMENDED: Final = "recommended"
OURS: Final = "ours"

SEND: Final = ("publish", "request")
ALL: Final = (*SEND, "process", "metrics")
STATEMENT: Final = "statement"
EVENT: Final = "event"
RESOURCE: Final = "resource"
METRICS_ONLY: Final = ("metrics",)


class Attribute(NamedTuple):
    """An attribute, what it is on, and what the conventions say of it there."""

    name: str
    on: tuple[str, ...]
    level: str
    note: str = ""


class Instrument(NamedTuple):
    """A metric, its kind and unit, what the conventions say of it, and what it tells."""

    name: str
    kind: str
    unit: str
    level: str
    tells: str


ATTRIBUTES: Final = (
    Attribute(names.SYSTEM, ALL, REQUIRED, "`pulsar` is well known; `nats`, `memory` are custom"),
    Attribute(names.OPERATION_NAME, ALL, REQUIRED, "`publish`, `request` or `process`"),
    Attribute(names.OPERATION_TYPE, ALL, CONDITIONAL, "`send` or `process`"),
    Attribute(
        names.DESTINATION_TEMPLATE, ALL, CONDITIONAL, "the pattern; never a subject with ids"
    ),
    Attribute(
        names.DESTINATION_NAME, ALL, CONDITIONAL, "only where the pattern is one destination"
    ),
    Attribute(names.CONSUMER_GROUP, ("process", "metrics"), CONDITIONAL, "where there is a group"),
    Attribute(names.DESTINATION_SUBSCRIPTION, ("process", "metrics"), CONDITIONAL, "on Pulsar"),
    Attribute(names.MESSAGE_ID, (*SEND, "process"), RECOMMENDED),
    Attribute(names.SERVER_ADDRESS, (*ALL, STATEMENT), RECOMMENDED, "on metrics: if available"),
    Attribute(names.SERVER_PORT, (*ALL, STATEMENT), RECOMMENDED),
    Attribute(names.ERROR_TYPE, (*ALL, STATEMENT, EVENT), CONDITIONAL, "on failure: the class"),
    Attribute(names.DB_SYSTEM, (STATEMENT,), REQUIRED),
    Attribute(names.DB_NAMESPACE, (STATEMENT,), CONDITIONAL),
    Attribute(names.DB_OPERATION, (STATEMENT,), CONDITIONAL),
    Attribute(names.DB_COLLECTION, (STATEMENT,), CONDITIONAL),
    Attribute(names.DB_BATCH_SIZE, (STATEMENT,), RECOMMENDED, "with many parameter sets"),
    Attribute(names.SERVICE_NAME, (RESOURCE,), REQUIRED),
    Attribute(names.SERVICE_VERSION, (RESOURCE,), RECOMMENDED),
    Attribute(names.DEPLOYMENT_ENVIRONMENT, (RESOURCE,), RECOMMENDED),
    Attribute(names.EXCEPTION_TYPE, (EVENT, "log"), CONDITIONAL),
    Attribute(names.EXCEPTION_MESSAGE, (EVENT,), CONDITIONAL, "with `record_exceptions=True` only"),
    Attribute(names.EXCEPTION_STACKTRACE, (EVENT,), RECOMMENDED, "the same"),
    Attribute(names.ARC_ATTEMPTS, ("process", EVENT), OURS, "after a failed attempt"),
    Attribute(names.ARC_REDELIVERED, ("process",), OURS, "after a failed attempt"),
    Attribute(names.ARC_CANCELLED, (*SEND, "process", STATEMENT), OURS, "cut off; no failure"),
    Attribute(names.ARC_ATTEMPT, (EVENT,), OURS),
    Attribute(names.ARC_VERDICT, (EVENT,), OURS),
    Attribute(names.ARC_ERROR_MESSAGE, (EVENT,), OURS, "`record_error` only"),
    Attribute(names.ARC_OPERATION, METRICS_ONLY, OURS, "`record_latency`"),
    Attribute(names.ARC_TRANSPORT, METRICS_ONLY, OURS, "a route's URL without its secrets"),
    Attribute(names.ARC_PLUGIN, METRICS_ONLY, OURS),
    Attribute(names.ARC_SIGNAL, METRICS_ONLY, OURS),
    Attribute(names.ARC_REASON, METRICS_ONLY, OURS),
)

_COUNTED: Final = "{message}"

INSTRUMENTS: Final = (
    Instrument(names.OPERATION_DURATION, "histogram", "s", REQUIRED, "publishes, requests"),
    Instrument(names.SENT_MESSAGES, "counter", _COUNTED, REQUIRED, "the same, counted"),
    Instrument(names.PROCESS_DURATION, "histogram", "s", REQUIRED, "handlers, retries included"),
    Instrument(names.CONSUMED_MESSAGES, "counter", _COUNTED, REQUIRED, "the same, counted"),
    Instrument(
        names.ARC_HOP_LATENCY, "histogram", "s", OURS, "from publishing to handling; sampled"
    ),
    Instrument(names.ARC_IN_FLIGHT, "gauge", _COUNTED, OURS, "handlers at work"),
    Instrument(names.ARC_HELD, "gauge", _COUNTED, OURS, "in this process, waiting or at work"),
    Instrument(names.ARC_BACKLOG, "gauge", _COUNTED, OURS, "at the broker: the lag"),
    Instrument(names.ARC_OUTBOX_DEPTH, "gauge", _COUNTED, OURS, "rows not relayed yet"),
    Instrument(names.ARC_OUTBOX_AGE, "gauge", "s", OURS, "how old the oldest of them is"),
    Instrument(
        names.ARC_RETRIED, "counter", _COUNTED, OURS, "failed attempts with another to come"
    ),
    Instrument(names.ARC_DEAD_LETTERS, "counter", _COUNTED, OURS, "given up"),
    Instrument(
        names.ARC_DROPPED, "counter", _COUNTED, OURS, "lost on a full queue, or in an outage"
    ),
    Instrument(names.ARC_RETURNED, "counter", _COUNTED, OURS, "given back to the broker unstarted"),
    Instrument(names.ARC_ABANDONED, "counter", _COUNTED, OURS, "cut off by a stop"),
    Instrument(names.ARC_CONNECTIONS_LOST, "counter", "{connection}", OURS, "disconnections"),
    Instrument(names.ARC_RECONNECTS, "counter", "{connection}", OURS, "reconnections"),
    Instrument(names.ARC_ERRORS, "counter", "{error}", OURS, "what the bus reports otherwise"),
    Instrument(names.ARC_TELEMETRY_LOST, "counter", "{item}", OURS, "by signal and reason"),
    Instrument(names.ARC_TELEMETRY_QUEUE, "gauge", "{span}", OURS, "spans that wait for export"),
)


def as_markdown() -> str:
    """Return both tables, as the documentation shows them."""
    lines = ["| attribute | on | conventions say | |", "|---|---|---|---|"]
    lines += [f"| `{a.name}` | {', '.join(a.on)} | {a.level} | {a.note} |" for a in ATTRIBUTES]
    lines += ["", "| metric | kind, unit | conventions say | tells |", "|---|---|---|---|"]
    lines += [f"| `{i.name}` | {i.kind}, {i.unit} | {i.level} | {i.tells} |" for i in INSTRUMENTS]
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())  # noqa: T201 - what the command is for
