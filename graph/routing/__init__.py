"""Routing of a request to an agent."""
