"""A vector without a direction is refused: it has no cosine distance, and is in no index."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

# Rows of before stay as they are, vector and all, and are told of; a write to one is refused
# until it brings another vector or none. The limits are those of `to_floats`.
_UPGRADE = """
DO $do$
BEGIN
    ALTER TABLE agents.conversations ADD CONSTRAINT ck_conversations_embedding
        CHECK (vector_norm(embedding) BETWEEN 1e-15 AND 1e15) NOT VALID;
    BEGIN
        ALTER TABLE agents.conversations VALIDATE CONSTRAINT ck_conversations_embedding;
    EXCEPTION WHEN check_violation THEN
        RAISE WARNING 'rows of agents.conversations break ck_conversations_embedding:'
            ' kept as they are';
    END;
END
$do$
"""


def upgrade() -> None:
    """Add the check."""
    op.execute(_UPGRADE)


def downgrade() -> None:
    """Take any vector again, as the contracts do."""
    op.execute("ALTER TABLE agents.conversations DROP CONSTRAINT ck_conversations_embedding")
