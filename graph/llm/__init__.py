"""The chat model over the LLM proxy, and the choice between it and the offline model."""

from graph.llm.model import ProxyModel, endpoint, open_model, studio_model

__all__ = ["ProxyModel", "endpoint", "open_model", "studio_model"]
