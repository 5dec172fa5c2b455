"""The chat model over the LLM proxy, and the choice between it and the offline model."""

from graph.llm.endpoint import build_endpoint
from graph.llm.model import ProxyModel, make_studio_model, open_model

__all__ = ["ProxyModel", "build_endpoint", "make_studio_model", "open_model"]
