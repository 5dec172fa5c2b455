"""Complete a text that was cut off at the output limit with a second model call, and say so if it stays cut off."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.messages.ai import add_usage

from graph.completion.reply import Reply
from graph.marks import TruncationReason, truncation_of

CONTINUE_PROMPT = (
    "Your answer was cut off at the output limit. Continue it exactly where it stopped, with the very next character. "
    "Do not repeat anything, and do not write an introduction."
)
"""The message of the user in the request for the rest. It is not part of the conversation."""
TRUNCATION_SENTENCES: dict[TruncationReason, str] = {
    "length": 'The answer was cut off here, at the output limit of the model. Write "Go on" to get the rest.',
    "content_filter": "The content filter of the model's service stopped the answer here. Put the request in other "
    "words.",
}
"""The end of an answer that was cut off, as the user reads it. The model does not get it."""
FENCE = "```"


def can_continue(reply: Reply) -> bool:
    """Return whether a second call may complete the answer: a text that only a limit cut off, without calls."""
    return reply.truncation == "length" and not reply.message.tool_calls and bool(str(reply.message.content).strip())


def build_continuation(message: AIMessage) -> Sequence[AnyMessage]:
    """Return the messages that ask for the rest of a message. The roles alternate, as strict templates want it."""
    return [message, HumanMessage(CONTINUE_PROMPT)]


def join_replies(first: Reply, rest: Reply) -> Reply:
    """Return one reply: the texts without a gap, the calls of the rest, the usage of both.

    The first text is left out if the rest shows that it was thoughts. The provider's fields are those of the rest; only
    a rest without any leaves those of the first.
    """
    start = "" if rest.follows_thoughts else first.message.content
    return rest._replace(
        message=rest.message.model_copy(
            update={
                "content": f"{start}{rest.message.content}",
                "additional_kwargs": {**first.message.additional_kwargs, **rest.message.additional_kwargs},
                "usage_metadata": add_usage(first.message.usage_metadata, rest.message.usage_metadata),
            }
        )
    )


def append_words(reply: Reply, words: Sequence[str]) -> Reply:
    """Return a reply that is still cut off, with the words that came before its rest broke off."""
    content = f"{reply.message.content}{''.join(words)}"
    return reply._replace(message=reply.message.model_copy(update={"content": content}))


def build_truncation_note(message: AIMessage) -> str:
    """Return the text that follows a message for its user: a sentence if it was cut off, empty otherwise.

    The sentence does not become a part of a code block that was cut off.
    """
    if not (reason := truncation_of(message)):
        return ""
    end = f"\n{FENCE}" if str(message.content).count(FENCE) % 2 else ""
    return f"{end}\n\n{TRUNCATION_SENTENCES[reason]}"
