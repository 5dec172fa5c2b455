"""Runs of the graph."""
