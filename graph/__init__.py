"""The agents as a LangGraph state machine: protocol and state, nodes and routes, checkpoints, models, budgets."""

import os

# Read when langgraph is imported. Without it a crafted checkpoint could run code.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
