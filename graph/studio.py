"""What `langgraph.json` names: LangGraph looks a graph up in its module's dictionary."""

from graph import topology

graph = topology.graph
