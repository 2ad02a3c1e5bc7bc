"""The published schema: what the contracts say, made only where it is not there yet."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS agents.conversations (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id varchar(255) NOT NULL,
        agent_id varchar(255) NOT NULL DEFAULT 'arc-scarlett-voice',
        room_name varchar(255),
        session_id varchar(255),
        turn_index integer NOT NULL DEFAULT 0,
        user_input text NOT NULL,
        agent_response text NOT NULL,
        embedding vector(1536),
        context_used jsonb,
        llm_model varchar(100),
        llm_tokens_used integer,
        stt_model varchar(100),
        tts_model varchar(100),
        stt_latency_ms integer,
        llm_latency_ms integer,
        tts_latency_ms integer,
        total_latency_ms integer,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_conversations_turn_published UNIQUE (user_id, agent_id, turn_index)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS agents.sessions (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        room_name varchar(255) NOT NULL,
        room_sid varchar(255),
        participant_sid varchar(255),
        user_id varchar(255) NOT NULL,
        user_identity varchar(255),
        agent_id varchar(255) NOT NULL DEFAULT 'arc-scarlett-voice',
        session_start timestamptz NOT NULL DEFAULT now(),
        session_end timestamptz,
        duration_seconds integer,
        total_turns integer NOT NULL DEFAULT 0,
        total_user_messages integer NOT NULL DEFAULT 0,
        total_agent_messages integer NOT NULL DEFAULT 0,
        error_count integer NOT NULL DEFAULT 0,
        avg_latency_ms integer NOT NULL DEFAULT 0,
        p95_latency_ms integer NOT NULL DEFAULT 0,
        p99_latency_ms integer NOT NULL DEFAULT 0,
        avg_packet_loss_percent numeric(5,2),
        avg_jitter_ms integer,
        connection_quality varchar(20) NOT NULL DEFAULT 'good',
        status varchar(50) NOT NULL DEFAULT 'active',
        error_message text,
        recording_id uuid,
        recording_url text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
)


def upgrade() -> None:
    """Make the tables that are missing; those of an older publisher stay as they are."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Leave the tables: they are the contracts', and somebody's rows are in them."""
