"""The offline model `fake-llm`: deterministic, no network, every path of the service without a key."""

from graph.offline.model import OfflineModel

__all__ = ["OfflineModel"]
