"""The messages of the threads that ran last: a long conversation is not read from the database at every message."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.base import DeltaChannelHistory

MAX_CACHED_CHARACTERS = 64_000_000
"""How much of the messages' text is kept in all."""
MAX_CACHED_THREADS = 1_000


class CachedThread(NamedTuple):
    checkpoint_id: str
    messages: list[AnyMessage] | None
    """None until the run that wrote the checkpoint has told them."""
    measured_count: int = 0
    size: int = 0
    """Characters of the first `known` messages."""


class CheckpointCache:
    """Each thread as of one checkpoint. It cannot be stale: a checkpoint never changes, and is looked up by its id."""

    def __init__(self) -> None:
        self._threads: OrderedDict[str, CachedThread] = OrderedDict()
        self._size = 0

    def record_checkpoint(self, thread_id: str, checkpoint_id: str) -> None:
        before = self._threads.get(thread_id)
        known, size = (before.measured_count, before.size) if before else (0, 0)
        self._store_thread(thread_id, CachedThread(checkpoint_id, None, known, size))

    def record_messages(self, thread_id: str, messages: list[AnyMessage]) -> str | None:
        """The messages as of the checkpoint that was written last, whose id is returned if it is known."""
        head = self._threads.get(thread_id)
        if head is None:
            return None
        size = head.size + sum(map(_count_characters, messages[head.measured_count :]))
        self._store_thread(thread_id, CachedThread(head.checkpoint_id, messages, len(messages), size))
        return head.checkpoint_id

    def discard_thread(self, thread_id: str) -> None:
        if head := self._threads.pop(thread_id, None):
            self._size -= head.size

    def get_history(
        self, configurable: Mapping[str, Any], channels: Sequence[str]
    ) -> dict[str, DeltaChannelHistory] | None:
        """What a saver would read for the channel `messages`; None if it has to."""
        head = self._threads.get(configurable["thread_id"])
        if head is None or head.messages is None or list(channels) != ["messages"]:
            return None
        if head.checkpoint_id != configurable.get("checkpoint_id"):
            return None
        self._threads.move_to_end(configurable["thread_id"])
        return {"messages": {"writes": [], "seed": head.messages}}

    def _store_thread(self, thread_id: str, head: CachedThread) -> None:
        self.discard_thread(thread_id)
        if head.size > MAX_CACHED_CHARACTERS:
            return
        self._threads[thread_id] = head
        self._size += head.size
        while self._size > MAX_CACHED_CHARACTERS or len(self._threads) > MAX_CACHED_THREADS:
            self.discard_thread(next(iter(self._threads)))


def _count_characters(message: AnyMessage) -> int:
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    given = sum(len(value) for call in calls for value in call["args"].values() if isinstance(value, str))
    return len(message.content) + given
