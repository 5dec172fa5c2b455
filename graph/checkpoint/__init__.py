"""Store threads: a checkpointer for SQLite and one for Postgres, with a cache and a lease check."""
