"""The base of both checkpointers: a cache in front of a saver, and the check of the lease."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    DeltaChannelHistory,
)

from graph.checkpoint.cache import CheckpointCache
from graph.db.fencing import FencingToken, LeaseLost

T = TypeVar("T")


class CachingCheckpointer(BaseCheckpointSaver[str]):
    """A cache in front of a saver, so that the threads of the last runs are not read again."""

    cache: CheckpointCache

    async def prepare(self) -> None:
        """Create missing tables. Only one process may do this at a time."""
        raise NotImplementedError

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        saved = await super().aput(config, checkpoint, metadata, new_versions)
        self.cache.record_checkpoint(saved["configurable"]["thread_id"], checkpoint["id"])
        return saved

    async def adelete_thread(self, thread_id: str) -> None:
        self.cache.discard_thread(thread_id)
        await super().adelete_thread(thread_id)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if cached := self.cache.get_history(config["configurable"], channels):
            return cached
        return await super().aget_delta_channel_history(config=config, channels=channels)


def require_lease(lease_row: Any, fence: FencingToken) -> None:
    """Raise LeaseLost if no row has the lease of the token."""
    if not lease_row:
        raise LeaseLost(fence.session_id)
