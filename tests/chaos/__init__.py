"""Cause failures on purpose, by seed, and judge the outcome by the client's ledger, the model's and the database."""
