"""Access to the database that threads and rows share."""
