"""What must be provable for years: who did what to whose data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from arc_bus.contracts.fields import Count, Payload, Text, always
from arc_bus.contracts.registry import Contract
from arc_bus.errors import EncodeError

ComplianceEventType: TypeAlias = Literal[
    "user_data_accessed",
    "user_data_modified",
    "user_data_deleted",
    "user_consent_granted",
    "user_consent_revoked",
    "data_export_requested",
    "data_anonymization_executed",
]
"""What can happen to a person's data."""


class Actor(Payload, frozen=True, kw_only=True):
    """Who acted."""

    type: Text
    service_name: Text
    instance_id: str
    authenticated_as: str


class Action(Payload, frozen=True, kw_only=True):
    """What was done, to what, and why."""

    type: Text
    operation: Text
    resource: Text
    resource_id: str
    reason: str


class DataAccessed(Payload, frozen=True, kw_only=True):
    """Which data was read or written."""

    tables: list[str]
    row_count: Count
    columns: list[str]
    pii_fields: list[str]


class Compliance(Payload, frozen=True, kw_only=True):
    """On what ground, and under which protection."""

    legal_basis: str
    data_retention_policy: str
    encryption: str
    anonymization: str | bool


class ComplianceContext(Payload, frozen=True, kw_only=True):
    """Where it belongs. `trace_id` is that of the action, not of the publishing."""

    trace_id: str
    user_consent_id: str
    session_id: str


class ComplianceEvent(Payload, frozen=True, kw_only=True):
    """Something was done with a person's data; kept 7 years in the order of that person.

    The topic is partitioned by user_id, which is no field of the payload: `publish` needs `key=`.

    Example:
        ComplianceEvent(event_type="user_data_accessed",
            actor=Actor(type="service", service_name="arc-sherlock-brain",
                instance_id="brain-1", authenticated_as="svc-brain"),
            action=Action(type="read", operation="SELECT", resource="conversations",
                resource_id="conv-1", reason="context for an answer"))
    """

    schema: Literal["compliance-audit-v1"] = always("compliance-audit-v1")
    event_type: ComplianceEventType
    actor: Actor
    action: Action
    data_accessed: DataAccessed | None = None
    compliance: Compliance | None = None
    context: ComplianceContext | None = None


class AuditLog(Payload, frozen=True, kw_only=True):
    """Who did what to which resource, plus any further fields; kept 7 years in the user's order.

    To say more than these three, publish a `dict` that has them, or a subclass; a handler that
    wants the rest takes a `dict`.

    Example:
        AuditLog(user_id="user-123", action="login", resource="session")
    """

    user_id: Text
    action: Text
    resource: Text


SEVEN_YEARS = 2557
"""Days, two of them leap days at least."""


def _no_user_id(_payload: object) -> str:
    raise EncodeError(
        "'persistent://arc/audit/compliance-events' is partitioned by the user whose data it is,"
        " and the payload does not name one: pass key=<user_id>"
    )


CONTRACTS = (
    Contract(
        destination="persistent://arc/audit/compliance-events",
        payload=ComplianceEvent,
        event_types=(
            "user_data_accessed",
            "user_data_modified",
            "user_data_deleted",
            "user_consent_granted",
            "user_consent_revoked",
            "data_export_requested",
            "data_anonymization_executed",
        ),
        key=_no_user_id,
        schema="compliance-audit-v1",
        partitions=32,
        retention_days=SEVEN_YEARS,
    ),
    Contract(
        destination="persistent://arc/audit/logs",
        payload=AuditLog,
        event_type="audit_log",
        key="user_id",
        partitions=4,
        retention_days=SEVEN_YEARS,
    ),
)
"""Durable topics of the namespace `audit`."""
