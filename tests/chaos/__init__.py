"""Failures on purpose, by seed; what is promised is judged by the client's ledger, the model's, and the database."""
