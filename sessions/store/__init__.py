"""Tables, rows and transactions."""
