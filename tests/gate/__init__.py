"""The proof by running: what the gate auto-approves is run, watched, and must only read."""
