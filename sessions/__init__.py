"""What outlives a run: the sessions, the runs and their events, the audit."""
