"""The module that `langgraph.json` names. LangGraph looks a graph up in the dictionary of its module."""

from graph import topology

graph = topology.graph
