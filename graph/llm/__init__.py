"""The chat model over the LLM proxy, and the choice between it and the offline model."""

from graph.llm.model import ProxyModel, build_endpoint, make_studio_model, open_model

__all__ = ["ProxyModel", "build_endpoint", "make_studio_model", "open_model"]
