"""Our additions: the session in the key, the embedding's model, checks, triggers, outbox, inbox.

All in SQL that looks for itself what is there, because the published schema says what indexes and
rules exist but not what they are called, and because it is also to be run by hand.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_INDEXES = (
    ("conversations", "ix_conversations_user_id", "(user_id)"),
    ("conversations", "ix_conversations_session_id", "(session_id)"),
    ("conversations", "ix_conversations_room_name", "(room_name)"),
    ("conversations", "ix_conversations_created_at", "(created_at DESC)"),
    ("conversations", "ix_conversations_user_id_created_at", "(user_id, created_at DESC)"),
    ("conversations", "ix_conversations_session_id_turn_index", "(session_id, turn_index)"),
    ("sessions", "ix_sessions_user_id", "(user_id)"),
    ("sessions", "ix_sessions_room_name", "(room_name)"),
    ("sessions", "ix_sessions_status", "(status)"),
    ("sessions", "ix_sessions_session_start", "(session_start DESC)"),
    ("sessions", "ix_sessions_user_id_session_start", "(user_id, session_start DESC)"),
)
_NOT_BLANK = r"btrim({}, E' \t\n\r\f\x0b') <> ''"
_CHECKS = (
    *(
        ("conversations", f"ck_conversations_{name}", f"{name} >= 0")
        for name in (
            "turn_index",
            "stt_latency_ms",
            "llm_latency_ms",
            "tts_latency_ms",
            "total_latency_ms",
        )
    ),
    *(
        ("conversations", f"ck_conversations_{name}", _NOT_BLANK.format(name))
        for name in ("user_input", "agent_response")
    ),
    *(
        ("sessions", f"ck_sessions_{name}", _NOT_BLANK.format(name))
        for name in ("room_name", "user_id")
    ),
    ("sessions", "ck_sessions_duration_seconds", "duration_seconds >= 0"),
    (
        "sessions",
        "ck_sessions_connection_quality",
        "connection_quality IN ('excellent', 'good', 'fair', 'poor')",
    ),
    ("sessions", "ck_sessions_status", "status IN ('active', 'ended', 'error')"),
)


def _values(rows: tuple[tuple[str, str, str], ...]) -> str:
    quoted = ("(" + ", ".join(f"$v${value}$v$" for value in row) + ")" for row in rows)
    return "VALUES " + ", ".join(quoted)


# An index that is there under another name is renamed; one that is missing is made.
_ADOPT_INDEXES = f"""
DO $do$
DECLARE
    wanted record;
    present text;
BEGIN
    FOR wanted IN SELECT * FROM ({_values(_INDEXES)}) AS v (tbl, name, def) LOOP
        SELECT c.relname INTO present
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = to_regclass('agents.' || wanted.tbl) AND NOT i.indisunique
          AND split_part(pg_get_indexdef(i.indexrelid), ' USING btree ', 2) = wanted.def
        ORDER BY (c.relname = wanted.name) DESC
        LIMIT 1;
        IF present IS NULL THEN
            EXECUTE format('CREATE INDEX %I ON agents.%I %s', wanted.name, wanted.tbl, wanted.def);
        ELSIF present <> wanted.name THEN
            EXECUTE format('ALTER INDEX agents.%I RENAME TO %I', present, wanted.name);
        END IF;
    END LOOP;
END
$do$
"""

# What older rows break is not checked for them, only for every write from now on.
_ADD_CHECKS = f"""
DO $do$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT * FROM ({_values(_CHECKS)}) AS v (tbl, name, rule) LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = to_regclass('agents.' || wanted.tbl) AND conname = wanted.name);
        EXECUTE format('ALTER TABLE agents.%I ADD CONSTRAINT %I CHECK (%s) NOT VALID',
            wanted.tbl, wanted.name, wanted.rule);
        BEGIN
            EXECUTE format('ALTER TABLE agents.%I VALIDATE CONSTRAINT %I', wanted.tbl, wanted.name);
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'rows of agents.% break %: kept as they are', wanted.tbl, wanted.name;
        END;
    END LOOP;
END
$do$
"""

# The published key by whatever name, a constraint or a bare unique index.
_DROP_PUBLISHED_KEY = """
DO $do$
DECLARE
    old record;
BEGIN
    FOR old IN
        SELECT c.relname, con.conname
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.contype = 'u'
        WHERE i.indrelid = to_regclass('agents.conversations') AND i.indisunique
          AND split_part(pg_get_indexdef(i.indexrelid), ' USING btree ', 2)
              = '(user_id, agent_id, turn_index)'
    LOOP
        IF old.conname IS NOT NULL THEN
            EXECUTE format('ALTER TABLE agents.conversations DROP CONSTRAINT %I', old.conname);
        ELSE
            EXECUTE format('DROP INDEX agents.%I', old.relname);
        END IF;
    END LOOP;
END
$do$
"""

_UPGRADE = (
    "ALTER TABLE agents.conversations ADD COLUMN IF NOT EXISTS embedding_model varchar(255)",
    """
    ALTER TABLE agents.conversations ADD CONSTRAINT uq_conversations_turn
        UNIQUE NULLS NOT DISTINCT (user_id, agent_id, session_id, turn_index)
    """,
    # A vector inside its row: comparing it takes a quarter of the time, saving it three quarters,
    # and the table is no bigger. Texts stay there too, as far as a page goes. Older rows stay out.
    "ALTER TABLE agents.conversations ALTER COLUMN embedding SET STORAGE MAIN",
    "ALTER TABLE agents.conversations SET (toast_tuple_target = 8160)",
    _DROP_PUBLISHED_KEY,
    _ADOPT_INDEXES,
    _ADD_CHECKS,
    """
    CREATE OR REPLACE FUNCTION agents.arc_store_touch() RETURNS trigger LANGUAGE plpgsql AS $fn$
    BEGIN
        NEW.updated_at := now();
        RETURN NEW;
    END
    $fn$
    """,
    *(
        f"""
        CREATE OR REPLACE TRIGGER arc_store_touch BEFORE UPDATE ON agents.{table}
        FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
        EXECUTE FUNCTION agents.arc_store_touch()
        """
        for table in ("conversations", "sessions")
    ),
    # A queue's rows are as many dead ones as live ones: vacuum by their number, not by a share of
    # the table.
    """
    CREATE TABLE agents.outbox (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        service varchar(255) NOT NULL,
        share smallint NOT NULL,
        message_id varchar(255) NOT NULL,
        destination text NOT NULL,
        key text,
        headers jsonb NOT NULL,
        body bytea NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        error text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL,
        available_at timestamptz NOT NULL,
        dead_at timestamptz
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
    """,
    """
    CREATE INDEX ix_outbox_due ON agents.outbox (service, share, number) WHERE dead_at IS NULL
    """,
    """
    CREATE INDEX ix_outbox_failed ON agents.outbox (share, key)
        WHERE attempts > 0 AND dead_at IS NULL
    """,
    """
    CREATE TABLE agents.inbox (
        consumer varchar(255) NOT NULL,
        message_id varchar(255) NOT NULL,
        processed_at timestamptz NOT NULL,
        PRIMARY KEY (consumer, message_id)
    )
    """,
    "CREATE INDEX ix_inbox_processed_at ON agents.inbox (processed_at)",
)

_REFUSE_CLASHES = """
DO $do$
DECLARE
    clashes bigint;
BEGIN
    SELECT count(*) - count(DISTINCT (user_id, agent_id, turn_index)) INTO clashes
    FROM agents.conversations;
    IF clashes > 0 THEN
        RAISE EXCEPTION '% turns share (user_id, agent_id, turn_index) with a turn of another'
            ' session, which the published key forbids; move them elsewhere first', clashes;
    END IF;
END
$do$
"""

_DOWNGRADE = (
    _REFUSE_CLASHES,
    "DROP TABLE agents.inbox",
    "DROP TABLE agents.outbox",
    "DROP TRIGGER arc_store_touch ON agents.sessions",
    "DROP TRIGGER arc_store_touch ON agents.conversations",
    "DROP FUNCTION agents.arc_store_touch()",
    """
    ALTER TABLE agents.conversations ADD CONSTRAINT uq_conversations_turn_published
        UNIQUE (user_id, agent_id, turn_index)
    """,
    "ALTER TABLE agents.conversations DROP CONSTRAINT uq_conversations_turn",
    "ALTER TABLE agents.conversations DROP COLUMN embedding_model",
    "ALTER TABLE agents.conversations RESET (toast_tuple_target)",
    "ALTER TABLE agents.conversations ALTER COLUMN embedding SET STORAGE EXTERNAL",
)


def upgrade() -> None:
    """Add what is ours."""
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    """Remove what is ours, except checks and names of indexes, which the contracts know too."""
    for statement in _DOWNGRADE:
        op.execute(statement)
