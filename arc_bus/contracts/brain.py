"""What is asked of the reasoning engine (`arc-sherlock-brain`), and what it answers."""

from __future__ import annotations

import msgspec

from arc_bus.contracts.fields import Amount, Count, Fraction, JsonObject, Payload, Text, always
from arc_bus.contracts.registry import Contract


class PreviousTurn(Payload, frozen=True, kw_only=True):
    """One earlier turn: what the user said and what the agent answered."""

    user: str
    agent: str


def _none_yet() -> list[PreviousTurn]:
    # Not `list`: what that makes would be left out when empty, and readers rely on the field.
    return []


class BrainContext(Payload, frozen=True, kw_only=True):
    """What the brain should know before it reasons, oldest turn first.

    Older services send an empty context for none; `previous_turns` is empty then.
    """

    previous_turns: list[PreviousTurn] = msgspec.field(default_factory=_none_yet)
    user_profile: JsonObject | None = None


class BrainConstraints(Payload, frozen=True, kw_only=True):
    """Limits of one answer: tokens, sampling temperature, milliseconds in all."""

    max_tokens: Count = always(150)
    temperature: Amount = always(0.7)
    timeout_ms: Amount = always(2000)


class BrainRequest(Payload, frozen=True, kw_only=True):
    """What the user said; answered by a `BrainResponse` or a `BrainError`.

    `turn_index` counts the turns of a session from 0.

    Example:
        BrainRequest(request_id="req-1", user_id="user-123", session_id="session-1",
            conversation_id="conv-1", turn_index=0, user_input="What's the weather like today?",
            context=BrainContext(previous_turns=[PreviousTurn(user="Hi", agent="Hello!")]))
    """

    request_id: Text
    user_id: Text
    session_id: Text
    conversation_id: Text
    turn_index: Count
    user_input: Text
    context: BrainContext | None = None
    constraints: BrainConstraints | None = None


class BrainMetadata(Payload, frozen=True, kw_only=True):
    """How the answer came about."""

    llm_model: Text
    tokens_used: Count
    reasoning_steps: Count
    tools_called: list[str]
    confidence_score: Fraction


class BrainPerformance(Payload, frozen=True, kw_only=True):
    """How long the answer took, in milliseconds."""

    llm_latency_ms: Amount
    total_processing_ms: Amount


class BrainResponse(Payload, frozen=True, kw_only=True):
    """The answer to the `BrainRequest` of the same `request_id`.

    Example:
        BrainResponse(request_id="req-1", user_id="user-123", session_id="session-1",
            conversation_id="conv-1", turn_index=0, agent_response="Sunny and mild.",
            performance=BrainPerformance(llm_latency_ms=180, total_processing_ms=210))
    """

    request_id: Text
    user_id: Text
    session_id: Text
    conversation_id: Text
    turn_index: Count
    agent_response: str
    metadata: BrainMetadata | None = None
    performance: BrainPerformance | None = None


class BrainError(Payload, frozen=True, kw_only=True):
    """No answer to the `BrainRequest` of the same `request_id`.

    `error_type` is `timeout` or the like; `fallback_response` is what may be spoken instead.

    Example:
        BrainError(request_id="req-1", error_type="timeout", error_message="no answer in 2000 ms",
            retry_count=1, fallback_response="Sorry, could you say that again?")
    """

    request_id: Text
    error_type: Text
    error_message: str
    retry_count: Count
    fallback_response: str | None = None


CONTRACTS = (
    Contract(destination="agent.brain.request", payload=BrainRequest, event_type="brain_request"),
    Contract(
        destination="agent.brain.response", payload=BrainResponse, event_type="brain_response"
    ),
    Contract(destination="agent.brain.error", payload=BrainError, event_type="brain_error"),
)
"""Ephemeral subjects of the brain; `agent.brain.request` is also called as request and reply."""
