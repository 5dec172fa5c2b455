"""One model call of one specialist: its prompt, its tools, the conversation so far."""

from collections.abc import Callable, Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, SystemMessage

from graph import wire
from graph.completion.reply import Reply, complete
from graph.context.token_count import overhead, weight
from graph.conversation import for_model
from graph.tools.catalog import specification
from graph.usage.call import Purpose, estimate, spent
from graph.usage.tokens import tokens
from prompts import Agent


async def ask(
    llm: BaseChatModel,
    agent: Agent,
    conversation: Sequence[AnyMessage],
    options: wire.StreamOptions,
    on_text: Callable[[str], None],
    history: Sequence[AnyMessage] = (),
) -> Reply:
    """`history`: what the model is not sent of the conversation as well. Raises what the model raises."""
    tools = [specification(name) for name in agent.tools]
    model = llm.bind_tools(tools, parallel_tool_calls=options.parallel_tools, **agent.parameters)
    sent = [SystemMessage(agent.prompt), *for_model(conversation)]
    return await complete(model, sent, on_text, parallel=options.parallel_tools, history=history or sent)


def cut_off(agent: Agent, conversation: Sequence[AnyMessage], words: Sequence[str], purpose: Purpose) -> wire.Usage:
    """About what such a call cost that did not come to its end; `words`: what it had said."""
    usage = estimate(sent_tokens(agent, conversation), tokens("".join(words)))
    return spent(usage, agent=agent.name, purpose=purpose, model=agent.model or "", estimated=True)


def sent_tokens(agent: Agent, conversation: Sequence[AnyMessage]) -> int:
    """About how many such a call sends."""
    return overhead(agent) + sum(map(weight, for_model(conversation)))
