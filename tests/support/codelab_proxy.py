"""A scripted model behind CodeLab's LLM proxy, imitated by what it sends."""

import json
from dataclasses import dataclass
from typing import Any

from tests.support.llm_server import JSON_TYPE, Exchange, ScriptedReply

STREAM_FAULT, DOCUMENT_FAULT = "[Error] LiteLLM proxy stream unavailable", "[Error] LiteLLM proxy unavailable"
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "scripted"}


@dataclass(frozen=True)
class BehindProxy:
    """The reply of a model as the proxy passes it on: a stream has the text only, a document has everything.

    There is no usage, and every answer ends with "stop".
    """

    reply: ScriptedReply

    async def __call__(self, exchange: Exchange) -> None:
        if not exchange.request.is_streaming:
            message = {**self.reply.to_completion()["choices"][0]["message"], "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return await send_document(exchange, {**HEAD, "object": "chat.completion", "choices": [choice]})
        words = [event["choices"][0]["delta"].get("content") for event in self.reply.iter_events() if event["choices"]]
        return await send_stream(exchange, [word for word in words if word])


@dataclass(frozen=True)
class ProxyFault:
    """A fault of the services behind the proxy. In a stream some `words` may come before it."""

    error: str = "Connection error."
    words: tuple[str, ...] = ()

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.request.is_streaming:
            return await send_stream(exchange, [*self.words, f"{STREAM_FAULT}: {self.error}"])
        message = {"role": "assistant", "content": f"{DOCUMENT_FAULT}: {self.error}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return await send_document(exchange, {**HEAD, "object": "chat.completion", "choices": [choice]})


async def send_document(exchange: Exchange, document: dict[str, Any]) -> None:
    body = json.dumps({**document, "usage": None}).encode()
    await exchange.send_head(200, JSON_TYPE, Content_Length=str(len(body)))
    await exchange.send(body)


async def send_stream(exchange: Exchange, words: list[str]) -> None:
    """Send a stream with the padding of the proxy: each event has a second, empty line of data."""
    await exchange.start_stream()
    start = [build_event(role="assistant")] if words else []
    for event in [*start, *(build_event(content=word) for word in words), build_event(finish_reason="stop")]:
        await exchange.send_piece(f"data: {json.dumps(event)}\r\ndata: \r\n\r\n".encode())
    await exchange.send_piece(b"data: [DONE]\r\ndata: \r\n\r\n")
    await exchange.send_piece(b"")


def build_event(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return an event with every field of the proxy, most of them null."""
    names = ("role", "content", "function_call", "tool_calls", "metadata")
    choice = {"index": 0, "delta": {**dict.fromkeys(names), **delta}, "finish_reason": finish_reason}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}
