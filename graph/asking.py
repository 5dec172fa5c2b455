"""One model call of one specialist: its prompt, its tools, the conversation so far."""

import json
from collections.abc import Callable, Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, SystemMessage

from graph import wire
from graph.reply import Reply, complete
from graph.spending import size
from graph.state import for_model
from graph.tokens import tokens
from graph.tools import specification
from prompts import Agent


async def ask(
    llm: BaseChatModel,
    agent: Agent,
    conversation: Sequence[AnyMessage],
    options: wire.StreamOptions,
    on_text: Callable[[str], None],
) -> Reply:
    """Raises what the model raises."""
    tools = [specification(name) for name in agent.tools]
    model = llm.bind_tools(tools, parallel_tool_calls=options.parallel_tools, **agent.parameters)
    sent = [SystemMessage(agent.prompt), *for_model(conversation)]
    return await complete(model, sent, on_text, parallel=options.parallel_tools)


def sent_tokens(agent: Agent, conversation: Sequence[AnyMessage]) -> int:
    """About how many such a call sends."""
    tools = sum(tokens(json.dumps(specification(name))) for name in agent.tools)
    return size([SystemMessage(agent.prompt), *for_model(conversation)]) + tools
