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


class _Entry(weakref.ref[BaseMessage], Generic[T]):
    """A value, in the weak reference to its message. Conversations are long, so an entry is a single small object."""

    __slots__ = ("key", "value")
    key: int
    value: T


class PerMessageStore(Generic[T]):
    """Values by message. A value must not refer to its own message, which would then never be freed."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry[T]] = {}
        self._callback = self._drop  # one bound method for all entries

    def put(self, message: BaseMessage, value: T) -> T:
        entry: _Entry[T] = _Entry(message, self._callback)
        entry.key, entry.value = id(message), value
        self._entries[entry.key] = entry
        return value

    def pop(self, message: BaseMessage) -> T | None:
        entry = self._entries.pop(id(message), None)
        return entry.value if entry else None

    def _drop(self, entry: weakref.ref[BaseMessage]) -> None:
        if isinstance(entry, _Entry) and self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    def map_places(self, messages: Sequence[BaseMessage], compute: Callable[[int], T]) -> list[T]:
        """Return the value of each message. A missing one is computed from the place of its message."""
        entries = self._entries
        return [
            entry.value if (entry := entries.get(id(each))) else self.put(each, compute(place))
            for place, each in enumerate(messages)
        ]


class PerMessageCache(PerMessageStore[T], Generic[MessageT, T]):
    """A function of a message that is computed once in the life of the message."""

    def __init__(self, compute: Callable[[MessageT], T]) -> None:
        super().__init__()
        self._compute = compute

    def __call__(self, message: MessageT) -> T:
        entry = self._entries.get(id(message))
        return entry.value if entry else self.put(message, self._compute(message))

    def map(self, messages: Sequence[MessageT]) -> list[T]:
        """Return the value of each message."""
        return self.map_places(messages, lambda place: self._compute(messages[place]))
