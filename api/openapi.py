"""The bodies and streams on the OpenAPI page, which FastAPI cannot derive from the routes."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from graph import wire

MESSAGE_EXAMPLES: dict[str, dict[str, Any]] = {
    "user_message": {"type": "user_message", "content": "Read README.md", "role": "user"},
    "tool_result": {"type": "tool_result", "call_id": "call_1", "tool_name": "read_file", "result": "# Title"},
    "tool_result_failed": {"type": "tool_result", "call_id": "call_1", "error": "No such file: README.md"},
    "switch_agent": {"type": "switch_agent", "agent_type": "coder", "content": "Write hello.py", "reason": "mine"},
    "approve": {"type": "hitl_decision", "call_id": "call_1", "decision": "approve"},
    "approve_and_remember": {
        "type": "hitl_decision",
        "call_id": "call_1",
        "decision": "approve",
        "remember": {"scope": "session", "pattern": "docs/**", "uses": 5},
    },
    "edit": {
        "type": "hitl_decision",
        "call_id": "call_1",
        "decision": "edit",
        "modified_arguments": {"path": "hello2.py"},
    },
    "reject": {"type": "hitl_decision", "call_id": "call_1", "decision": "reject", "feedback": "Not in this folder."},
}

CHUNK_EXAMPLES: dict[str, wire.Chunk] = {
    "answer": wire.AssistantMessage(content="It says hi.", token="It says hi.", is_final=True),
    "truncated": wire.AssistantMessage(
        content="You take\n\nThe content filter of the model's service stopped the answer here.",
        metadata={"truncated": "content_filter"},
        is_final=True,
    ),
    "token": wire.AssistantMessage(token="It "),
    "tool_call": wire.ToolCall(call_id="call_1", tool_name="read_file", arguments={"path": "README.md"}),
    "approval": wire.ToolCall(
        call_id="call_1",
        tool_name="write_file",
        arguments={"path": "hello.py", "content": "print('hi')\n"},
        requires_approval=True,
        metadata={
            "rule": "write.file",
            "reason": "Writing a file needs the user's approval.",
            "remember": {"pattern": "hello.py"},
        },
    ),
    "passed": wire.ToolCall(
        call_id="call_2",
        tool_name="write_file",
        arguments={"path": "docs/a.md", "content": "# A\n"},
        metadata={
            "rule": "grant.5f1c",
            "reason": "The user allowed calls like this one.",
            "passed_by": "grant",
        },
    ),
    "agent_switched": wire.AgentSwitched(
        content="Switched to coder agent",
        metadata={
            "from_agent": "orchestrator",
            "to_agent": "coder",
            "reason": "It asks for code.",
            "confidence": "high",
            "classification_method": "llm",
        },
    ),
    "error": wire.Error(
        error="The model could not be reached. Send the message again.",
        metadata={"code": "llm_unavailable", "request_id": "5f1c"},
    ),
    "refusal": wire.Error(
        error="Architect may write only *.md files; 'x.py' is not one.",
        metadata={"code": "tool_denied", "call_id": "call_1", "tool_name": "write_file", "rule": "agent.may_write"},
        is_final=False,
    ),
    "usage": wire.Usage(prompt_tokens=812, completion_tokens=64, total_tokens=876, model_calls=2),
}

CHUNK_NAMES = sorted({type(chunk).__name__ for chunk in CHUNK_EXAMPLES.values()})

EVENT_RESPONSES: dict[str, Any] = {
    "200": {
        "description": "Server-sent events: `message` and `error` with a chunk each, `done` last.",
        "content": {
            "text/event-stream": {
                "schema": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in CHUNK_NAMES]},
                "examples": {
                    name: {"value": f"data: {chunk.to_json_line()}"} for name, chunk in CHUNK_EXAMPLES.items()
                },
            }
        },
    }
}


def _header_parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}


JOIN_OPERATION: dict[str, Any] = {
    "parameters": [
        _header_parameter("Last-Event-ID", "The `id:` of the last event that was read; absent: from the start.")
    ],
    "responses": EVENT_RESPONSES,
}

STREAM_OPERATION: dict[str, Any] = {
    "parameters": [_header_parameter("Idempotency-Key", "Makes a retry of the same message safe, as its `id` does.")],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/StreamRequest"},
                "examples": {
                    name: {"value": {"session_id": "s-1", "message": m}} for name, m in MESSAGE_EXAMPLES.items()
                },
            }
        },
    },
    "responses": EVENT_RESPONSES,
}


def request_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return the description of the body of a route that parses it by itself."""
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": model.model_json_schema()}}}
    }


def extend_openapi(app: FastAPI) -> None:
    """Add the models of the protocol and the key to the OpenAPI page of the app."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = original()
            models: list[type[Any]] = [wire.StreamRequest, *{type(chunk) for chunk in CHUNK_EXAMPLES.values()}]
            _, schemas = models_json_schema(
                [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
            )
            page.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            page["components"]["securitySchemes"] = {
                "key": {"type": "apiKey", "in": "header", "name": "X-Internal-Auth"}
            }
            page["security"] = [{"key": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
