"""Tests of the graph's nodes, in whole turns."""
