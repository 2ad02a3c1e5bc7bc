"""Every name that leaves this process, in one place: OpenTelemetry's conventions, and ours.

Names without `ARC_` follow the OpenTelemetry semantic conventions of the version in `SCHEMA_URL`
(messaging: "Development"; database, error and server: "Stable"). Names with `ARC_` are ours,
for what the conventions have no word for. A test compares the former with the installed
`opentelemetry-semantic-conventions`.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = "arc_telemetry"

# Attributes of spans and metrics (conventions, "Messaging", "General", "Error").
SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION_NAME: Final = "messaging.destination.name"
DESTINATION_TEMPLATE: Final = "messaging.destination.template"
DESTINATION_SUBSCRIPTION: Final = "messaging.destination.subscription.name"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
MESSAGE_ID: Final = "messaging.message.id"
ERROR_TYPE: Final = "error.type"
ERROR_OTHER: Final = "_OTHER"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# Attributes of database spans (conventions, "Database").
DB_SYSTEM: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_OPERATION: Final = "db.operation.name"
DB_COLLECTION: Final = "db.collection.name"
DB_BATCH_SIZE: Final = "db.operation.batch.size"

# Values of OPERATION_NAME (ours to choose) and OPERATION_TYPE (the conventions').
PUBLISH: Final = "publish"
REQUEST: Final = "request"
PROCESS: Final = "process"
TYPE_SEND: Final = "send"
TYPE_PROCESS: Final = "process"

# Metrics (conventions, "Messaging metrics"); durations in seconds.
OPERATION_DURATION: Final = "messaging.client.operation.duration"
SENT_MESSAGES: Final = "messaging.client.sent.messages"
CONSUMED_MESSAGES: Final = "messaging.client.consumed.messages"
PROCESS_DURATION: Final = "messaging.process.duration"

DURATION_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Upper bounds in seconds that the conventions ask of both durations."""

LATENCY_BUCKETS: Final = (
    1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 75.0,
    100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 10000.0,
)  # fmt: skip
"""Upper bounds in milliseconds of `record_latency`: the same shape, in its unit."""

# Ours: attributes.
ARC_ATTEMPT: Final = "arc.attempt"
ARC_ATTEMPTS: Final = "arc.attempts"
ARC_REDELIVERED: Final = "arc.redelivered"
ARC_VERDICT: Final = "arc.verdict"
ARC_CANCELLED: Final = "arc.cancelled"
ARC_TRANSPORT: Final = "arc.transport"
ARC_SIGNAL: Final = "arc.signal"
ARC_REASON: Final = "arc.reason"
ARC_ERROR_MESSAGE: Final = "arc.error.message"
ARC_OPERATION: Final = "arc.operation"
ARC_PLUGIN: Final = "arc.plugin"

# Ours: span events.
EVENT_ATTEMPT_FAILED: Final = "arc.attempt.failed"
EVENT_RETRY: Final = "arc.retry"
EVENT_DEAD_LETTER: Final = "arc.dead_letter"
EVENT_SETTLE: Final = "arc.settle"
EVENT_ERROR: Final = "arc.error"

# Ours: metrics.
ARC_HOP_LATENCY: Final = "arc.hop.latency"
ARC_IN_FLIGHT: Final = "arc.messages.in_flight"
ARC_BACKLOG: Final = "arc.queue.backlog"
ARC_HELD: Final = "arc.queue.held"
ARC_OUTBOX_DEPTH: Final = "arc.outbox.depth"
ARC_OUTBOX_AGE: Final = "arc.outbox.age"
ARC_RETRIED: Final = "arc.messages.retried"
ARC_DEAD_LETTERS: Final = "arc.messages.dead_lettered"
ARC_DROPPED: Final = "arc.messages.dropped"
ARC_RETURNED: Final = "arc.messages.returned"
ARC_ABANDONED: Final = "arc.messages.abandoned"
ARC_RECONNECTS: Final = "arc.connections.restored"
ARC_CONNECTIONS_LOST: Final = "arc.connections.lost"
ARC_ERRORS: Final = "arc.errors"
ARC_TELEMETRY_LOST: Final = "arc.telemetry.lost"
ARC_TELEMETRY_QUEUE: Final = "arc.telemetry.queue"

# Headers (W3C Trace Context, W3C Baggage).
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
TRACE_ID: Final = "trace_id"

DEFAULT_ENDPOINT: Final = "http://localhost:4317"
"""Where OTLP over gRPC goes unless told otherwise (contracts, "Telemetry"; OTLP specification)."""
