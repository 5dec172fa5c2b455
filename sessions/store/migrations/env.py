"""The script that alembic executes for each command, on the connection that `migrate` gives it."""

from alembic import context

from sessions.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
