"""What alembic runs, with the connection that `migrate` hands down."""

from alembic import context

from sessions.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
