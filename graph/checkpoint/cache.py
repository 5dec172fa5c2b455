"""The messages of the threads that ran last: a long conversation is not read from the database at every message."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.base import DeltaChannelHistory

CHARACTERS = 64_000_000
"""How much of the messages' text is kept in all."""
THREADS = 1_000


class Head(NamedTuple):
    checkpoint_id: str
    messages: list[AnyMessage] | None
    """None until the run that wrote the checkpoint has told them."""
    known: int = 0
    size: int = 0
    """Characters of the first `known` messages."""


class Recent:
    """Each thread as of one checkpoint. It cannot be stale: a checkpoint never changes, and is looked up by its id."""

    def __init__(self) -> None:
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._size = 0

    def wrote(self, thread_id: str, checkpoint_id: str) -> None:
        before = self._heads.get(thread_id)
        known, size = (before.known, before.size) if before else (0, 0)
        self._put(thread_id, Head(checkpoint_id, None, known, size))

    def tell(self, thread_id: str, messages: list[AnyMessage]) -> str | None:
        """The messages as of the checkpoint that was written last, whose id is returned if it is known."""
        head = self._heads.get(thread_id)
        if head is None:
            return None
        size = head.size + sum(map(_size, messages[head.known :]))
        self._put(thread_id, Head(head.checkpoint_id, messages, len(messages), size))
        return head.checkpoint_id

    def forget(self, thread_id: str) -> None:
        if head := self._heads.pop(thread_id, None):
            self._size -= head.size

    def history(
        self, configurable: Mapping[str, Any], channels: Sequence[str]
    ) -> dict[str, DeltaChannelHistory] | None:
        """What a saver would read for the channel `messages`; None if it has to."""
        head = self._heads.get(configurable["thread_id"])
        if head is None or head.messages is None or list(channels) != ["messages"]:
            return None
        if head.checkpoint_id != configurable.get("checkpoint_id"):
            return None
        self._heads.move_to_end(configurable["thread_id"])
        return {"messages": {"writes": [], "seed": head.messages}}

    def _put(self, thread_id: str, head: Head) -> None:
        self.forget(thread_id)
        if head.size > CHARACTERS:
            return
        self._heads[thread_id] = head
        self._size += head.size
        while self._size > CHARACTERS or len(self._heads) > THREADS:
            self.forget(next(iter(self._heads)))


def _size(message: AnyMessage) -> int:
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    given = sum(len(value) for call in calls for value in call["args"].values() if isinstance(value, str))
    return len(message.content) + given
