"""${message}."""

from __future__ import annotations

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """${upgrades if upgrades else "Change the schema."}"""


def downgrade() -> None:
    """Take it back, losing no row of conversations or sessions."""
