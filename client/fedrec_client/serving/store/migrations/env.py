"""Alembic's entry: the connection is handed in by `ServingStore.open`, never read from a file."""

from alembic import context

from fedrec_client.serving.store.tables import METADATA, is_migrated

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    include_name=is_migrated,
    render_as_batch=True,  # SQLite cannot alter a column in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
