"""The completion requests of specialists."""
