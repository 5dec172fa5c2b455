"""Where threads are stored."""
