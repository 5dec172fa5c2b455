"""One model call of one specialist: its prompt, its tools, the conversation so far."""

from collections.abc import Callable, Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, SystemMessage

from graph import wire
from graph.reply import Reply, complete
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
    return await complete(model, [SystemMessage(agent.prompt), *conversation], on_text, parallel=options.parallel_tools)
