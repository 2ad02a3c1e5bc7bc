"""Typed payloads of the A.R.C. platform, and the registry that binds them to destinations.

Each payload is a `msgspec.Struct` with its rules in its types. A service's own payloads are
registered the same way, by `bus.registry.register(Contract(...))` or a plugin's `arc_contracts`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from arc_bus.contracts.registry import Contract, Key, Registry, builtin

if TYPE_CHECKING:
    from arc_bus.contracts.analytics import (
        AgentPerformance,
        AnalyticsEvent,
        ConnectionQuality,
        ConversationStats,
        MeasuredSession,
        PerformanceMetrics,
        SessionMetrics,
    )
    from arc_bus.contracts.audit import (
        Action,
        Actor,
        AuditLog,
        Compliance,
        ComplianceContext,
        ComplianceEvent,
        ComplianceEventType,
        DataAccessed,
    )
    from arc_bus.contracts.brain import (
        BrainConstraints,
        BrainContext,
        BrainError,
        BrainMetadata,
        BrainPerformance,
        BrainRequest,
        BrainResponse,
        PreviousTurn,
    )
    from arc_bus.contracts.events import (
        AgentLifecycle,
        AgentResponse,
        Conversation,
        ConversationContext,
        ConversationEvent,
        ConversationMetadata,
        ConversationPerformance,
        LifecycleDetails,
        LifecycleEventType,
        LifecycleHealth,
        LivekitWebhook,
        ServiceInstance,
        UserMessage,
        WebhookMetadata,
    )
    from arc_bus.contracts.system import (
        Heartbeat,
        ServiceError,
        Status,
    )
    from arc_bus.contracts.tts import (
        TtsCompleted,
        TtsConstraints,
        TtsRequest,
    )
    from arc_bus.contracts.voice import (
        SessionEnded,
        SessionStarted,
        TrackPublished,
        TrackUnpublished,
    )

__all__ = [
    "Action",
    "Actor",
    "AgentLifecycle",
    "AgentPerformance",
    "AgentResponse",
    "AnalyticsEvent",
    "AuditLog",
    "BrainConstraints",
    "BrainContext",
    "BrainError",
    "BrainMetadata",
    "BrainPerformance",
    "BrainRequest",
    "BrainResponse",
    "Compliance",
    "ComplianceContext",
    "ComplianceEvent",
    "ComplianceEventType",
    "ConnectionQuality",
    "Contract",
    "Conversation",
    "ConversationContext",
    "ConversationEvent",
    "ConversationMetadata",
    "ConversationPerformance",
    "ConversationStats",
    "DataAccessed",
    "Heartbeat",
    "Key",
    "LifecycleDetails",
    "LifecycleEventType",
    "LifecycleHealth",
    "LivekitWebhook",
    "MeasuredSession",
    "PerformanceMetrics",
    "PreviousTurn",
    "Registry",
    "ServiceError",
    "ServiceInstance",
    "SessionEnded",
    "SessionMetrics",
    "SessionStarted",
    "Status",
    "TrackPublished",
    "TrackUnpublished",
    "TtsCompleted",
    "TtsConstraints",
    "TtsRequest",
    "UserMessage",
    "WebhookMetadata",
    "builtin",
]


def __getattr__(name: str) -> object:
    """Import the payloads when one is first asked for: 5 ms that `import arc_bus` need not pay."""
    if name in __all__:
        for module in ("analytics", "audit", "brain", "events", "system", "tts", "voice"):
            found = vars(import_module(f"arc_bus.contracts.{module}")).get(name)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
