"""Build the body of a completion request, for each model that may get it."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from graph.context.token_count import sum_message_tokens
from graph.llm.message_encoding import UNCHANGED, FieldChanges, find_provider_fields, messages_to_json
from graph.usage.tokens import BYTES_PER_TOKEN


class CompletionRequest:
    """A request that is not bound to a model yet."""

    def __init__(self, messages: Sequence[BaseMessage], options: dict[str, Any], *, streaming: bool) -> None:
        """`options` are fields of the body. One that is None or an empty list is left out."""
        self._messages = messages
        self._head_bytes = 0
        self.fields = {name: value for name, value in options.items() if value is not None and value != []}
        """The fields of the body but for its model and messages."""
        if "tools" not in self.fields:
            self.fields.pop("parallel_tool_calls", None)  # services refuse it without tools
        self.fields["stream"] = streaming
        if streaming:
            self.fields["stream_options"] = {"include_usage": True}

    def provider_fields(self, model: str) -> set[str]:
        """Return the names of the fields in the messages that the model once sent, and gets back."""
        return find_provider_fields(self._messages, model)

    def lacks_field(self, name: str, model: str, changes: FieldChanges) -> bool:
        """Return whether a message with calls lacks one of FILLABLE_FIELDS."""
        filled = changes._replace(filled=changes.filled | {name})
        return messages_to_json(self._messages, model, filled) != messages_to_json(self._messages, model, changes)

    @property
    def is_streaming(self) -> bool:
        return bool(self.fields["stream"])

    @property
    def has_tools(self) -> bool:
        return "tools" in self.fields

    def encode(self, model: str, changes: FieldChanges = UNCHANGED, *, is_streaming: bool = True) -> bytes:
        """Return the body for a model, with the fields that it accepts and requires.

        With `is_streaming` False the answer is requested as a whole, whatever the request wants.
        """
        fields = {name: value for name, value in self.fields.items() if name not in changes.without}
        if self.is_streaming and not is_streaming:
            fields = {**fields, "stream": False}
            fields.pop("stream_options", None)
        head = json.dumps({"model": model, **fields})
        self._head_bytes = len(head)
        return f'{head[:-1]}, "messages": {messages_to_json(self._messages, model, changes)}}}'.encode()

    def estimate_tokens(self) -> int:
        """Return the estimated tokens of the request that was encoded last: its tools and its messages."""
        return self._head_bytes // BYTES_PER_TOKEN + sum_message_tokens(self._messages)
