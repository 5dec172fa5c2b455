"""Tests of the sessions and their runs."""
