"""Call a specialist's model with its prompt, its tools and the conversation so far."""

from collections.abc import Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, SystemMessage

from graph import wire
from graph.completion.reply import Reply, stream_reply
from graph.context.token_count import estimate_overhead, get_message_tokens
from graph.thoughts import EmitPiece
from graph.tools.catalog import specification
from graph.usage.call import Purpose, build_usage, build_usage_metadata
from graph.usage.tokens import estimate_text_tokens
from prompts import Agent


async def request_completion(
    llm: BaseChatModel,
    agent: Agent,
    conversation: Sequence[AnyMessage],
    options: wire.StreamOptions,
    emit: EmitPiece,
    history: Sequence[AnyMessage] = (),
) -> Reply:
    """Return the model's answer; its words and thoughts go to `emit` as they come.

    `history` is the whole conversation, also the part that the model does not get; empty: `conversation` is all of it.
    Raises what the model raises.
    """
    tools = [specification(name) for name in agent.tools]
    model = llm.bind_tools(tools, parallel_tool_calls=options.parallel_tools, **agent.parameters)
    sent = [SystemMessage(agent.prompt), *conversation]
    return await stream_reply(model, sent, emit, parallel=options.parallel_tools, history=history or sent)


def estimate_partial_usage(
    agent: Agent, conversation: Sequence[AnyMessage], words: Sequence[str], purpose: Purpose
) -> wire.Usage:
    """Return the estimated usage of a call that was cut off. `words` are the words of its answer so far."""
    usage = build_usage_metadata(estimate_prompt_tokens(agent, conversation), estimate_text_tokens("".join(words)))
    return build_usage(usage, agent=agent.name, purpose=purpose, model=agent.model or "", estimated=True)


def estimate_prompt_tokens(agent: Agent, conversation: Sequence[AnyMessage]) -> int:
    """Return the estimated tokens that such a call sends."""
    return estimate_overhead(agent) + sum(map(get_message_tokens, conversation))
