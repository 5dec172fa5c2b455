"""Keep the messages of the last threads in memory, so that not every message reads a long conversation again."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.base import DeltaChannelHistory

from graph.marks import provider_data_of

MAX_CACHED_CHARACTERS = 64_000_000
"""Characters of text in all threads together: 64 to 256 MB, by their script. Chosen, not measured."""
MAX_CACHED_THREADS = 1_000
"""Threads, so that many short ones do not add up either. Chosen, not measured."""


class CachedThread(NamedTuple):
    checkpoint_id: str
    messages: list[AnyMessage] | None
    """None until the run that wrote the checkpoint has recorded them."""
    measured_count: int = 0
    """The number of messages that `size` counts."""
    size: int = 0
    """Characters of the first `measured_count` messages."""


class CheckpointCache:
    """The messages of each thread as of one checkpoint.

    An entry is never stale: a checkpoint does not change, and its id is compared at each look-up.
    """

    def __init__(self) -> None:
        self._threads: OrderedDict[str, CachedThread] = OrderedDict()
        self._size = 0

    def record_checkpoint(self, thread_id: str, checkpoint_id: str) -> None:
        """Note that a run wrote the checkpoint. Its messages follow with `record_messages`."""
        before = self._threads.get(thread_id)
        count, size = (before.measured_count, before.size) if before else (0, 0)
        self._store_thread(thread_id, CachedThread(checkpoint_id, None, count, size))

    def record_messages(self, thread_id: str, messages: list[AnyMessage]) -> str | None:
        """Store the messages as of the last checkpoint of the thread. Return its id, or None if it is not known."""
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
        """Return what a saver would read for the channel `messages`; None if the saver must read it."""
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
    if not isinstance(message, AIMessage):
        return len(message.content)
    in_calls = sum(
        len(value) for call in message.tool_calls for value in call["args"].values() if isinstance(value, str)
    )
    data = provider_data_of(message)
    return len(message.content) + in_calls + (sum(map(len, (data["fields"], *data["calls"].values()))) if data else 0)
