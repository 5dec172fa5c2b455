"""The shape of the runtime: what flows (wire, state), where it flows (topology), where it rests (checkpointer)."""

import os

# Read when langgraph is imported; without it a crafted checkpoint runs code.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
