"""Keep what was computed from a message for as long as the message lives.

Messages have no hash, so they cannot be keys. The key is the `id()` of the message, and a weak reference drops the
value together with the message.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from langchain_core.messages import BaseMessage

MessageT = TypeVar("MessageT", bound=BaseMessage)
T = TypeVar("T")


class PerMessageStore(Generic[T]):
    """Values by message. A value must not refer to its own message, which would then never be freed."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[BaseMessage], T]] = {}

    def put(self, message: BaseMessage, value: T) -> T:
        key = id(message)
        self._entries[key] = (weakref.ref(message, lambda _: self._entries.pop(key, None)), value)
        return value

    def pop(self, message: BaseMessage) -> T | None:
        entry = self._entries.pop(id(message), None)
        return entry[1] if entry else None

    def map_places(self, messages: Sequence[BaseMessage], compute: Callable[[int], T]) -> list[T]:
        """Return the value of each message. A missing one is computed from the place of its message."""
        entries = self._entries
        return [
            entry[1] if (entry := entries.get(id(each))) else self.put(each, compute(place))
            for place, each in enumerate(messages)
        ]


class PerMessageCache(PerMessageStore[T], Generic[MessageT, T]):
    """A function of a message that is computed once in the life of the message."""

    def __init__(self, compute: Callable[[MessageT], T]) -> None:
        super().__init__()
        self._compute = compute

    def __call__(self, message: MessageT) -> T:
        entry = self._entries.get(id(message))
        return entry[1] if entry else self.put(message, self._compute(message))
