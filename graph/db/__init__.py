"""Connect to the database that threads and rows share, retry its faults, and fence its writes."""
