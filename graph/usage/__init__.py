"""Measure, add up and limit the usage of tokens and money."""
