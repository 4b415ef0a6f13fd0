"""What Alembic runs: on the connection handed over, within its transaction."""

from typing import Literal

from alembic import context

from clinic.storage.tables import Base, Instant


def as_stored(kind: str, thing: object, _context: object) -> str | Literal[False]:
    """A migration stays what it was, whatever becomes of our own types."""
    if kind == "type" and isinstance(thing, Instant):
        return "sa.DateTime(timezone=True)"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=as_stored,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
