"""Checks before the routes."""
