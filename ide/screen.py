"""Print for the user. Text from outside is printed as text: none of its control characters reaches the terminal."""

import json
from collections import Counter
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.text import Text

from textsafety import escape_invisible

OUTPUT_TAIL_LENGTH = 2000
"""Characters at the end of a command's output that are shown, about a screen."""
MAX_HISTORY_LENGTH = 2000
"""Characters of a message in the history that are shown, about a screen."""
MAX_VALUE_LENGTH = 80
"""Characters of an argument or a pattern that are shown, about a line."""

DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class Screen:
    """The output of the IDE. Each token is printed as it arrives."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._streamed = ""
        """The tokens since the last whole text, already printed."""
        self._usage: Counter[str] = Counter()
        """The counts of the turn so far. They are printed at its end."""
        self._costs: dict[str, Decimal] = {}
        """The cost of the turn so far, by currency."""

    def print_text(self, text: str, style: str = "", *, end: str = "\n") -> None:
        """Print the text on a new line, after the tokens."""
        self._end_tokens()
        self._print_escaped(text, style, end)

    def print_notice(self, text: str) -> None:
        self.print_text(text, "dim")

    def print_error(self, text: str) -> None:
        self.print_text(text, "bold red")

    def print_diff(self, lines: list[str]) -> None:
        """Print the lines of a unified diff in colours."""
        for line in lines:
            self.print_text(line, DIFF_COLOURS.get(line[:1], ""))

    def show_chunk(self, chunk: dict[str, Any]) -> None:
        """Print a chunk of a stream; the usage of a turn follows its final chunk. Tool calls are printed elsewhere."""
        match chunk.get("type"):
            case "assistant_message":
                self._print_assistant_message(chunk)
            case "agent_switched":
                self.print_text(_format_switch(chunk.get("metadata") or {}), "magenta")
            case "error":
                about = chunk.get("metadata") or {}
                rule = f" (rule {about['rule']})" if about.get("rule") else ""
                self.print_error(f"{about.get('code', 'error')}: {chunk.get('error')}{rule}")
            case "usage":
                self._add_usage(chunk)
        if chunk.get("is_final") and chunk["type"] != "tool_call":
            if self._usage["model_calls"]:
                self.print_notice(_format_usage(self._usage, self._costs))
            self._usage.clear()
            self._costs.clear()

    def _add_usage(self, usage: dict[str, Any]) -> None:
        self._usage.update({k: v for k, v in usage.items() if type(v) is int})
        if (cost := usage.get("cost")) is not None:
            currency = str(usage.get("currency") or "")
            self._costs[currency] = self._costs.get(currency, Decimal(0)) + Decimal(str(cost))

    def print_tool_call(self, call: dict[str, Any]) -> None:
        """Print a call that is executed now, and what approved it if it was not the user."""
        arguments = ", ".join(f"{k}={_shorten_value(v)}" for k, v in call["arguments"].items())
        self.print_notice(f"{call['tool_name']}({arguments})")
        about = call.get("metadata") or {}
        if about.get("passed_by"):
            self.print_notice(
                f"  auto-approved by {about['passed_by']}: {about.get('reason')} (rule {about.get('rule')})"
            )

    def print_tool_result(self, outcome: dict[str, Any]) -> None:
        """Print the error of a tool, or the output of a command. Other results are not printed."""
        if "error" in outcome:
            self.print_text(f"  {outcome['error']}", "red")
        elif isinstance(command := outcome["result"], dict):
            self.print_notice(
                "  " + (command["stdout"] + command["stderr"]).strip()[-OUTPUT_TAIL_LENGTH:].replace("\n", "\n  ")
            )
            self.print_notice(
                "  stopped at its time limit" if command["timed_out"] else f"  exit code {command['exit_code']}"
            )

    def print_grants(self, grants: list[dict[str, Any]]) -> None:
        """Print the approvals that the user gave in advance."""
        for grant in grants:
            self.print_text(grant["id"], "bold", end="  ")
            left = f", {grant['uses_left']} uses left" if grant.get("uses_left") is not None else ""
            until = f", until {_format_time(grant['expires_at'])}" if grant.get("expires_at") else ""
            terms = f"{grant['agent']}, {grant['scope']}{left}{until}"
            self._print_escaped(f"{grant['tool_name']} {_shorten_value(grant['pattern'])}  ({terms})", "", "\n")
        if not grants:
            self.print_notice("Nothing is allowed in advance.")

    def print_history(self, messages: list[dict[str, Any]]) -> None:
        """Print messages in the format of OpenAI, each shortened."""
        for message in messages:
            self.print_text(f"{message['role']}: ", "bold", end="")
            self._print_escaped(_shorten_value(message.get("content") or "", MAX_HISTORY_LENGTH), "", "\n")
            for call in message.get("tool_calls") or ():
                self.print_notice(f"  {call['function']['name']} {_shorten_value(call['function']['arguments'])}")

    def print_sessions(self, sessions: list[dict[str, Any]], total: int) -> None:
        """Print the sessions, which come newest first. The newest is printed last, where the user looks."""
        if total > len(sessions):
            self.print_notice(f"The newest {len(sessions)} of {total} sessions:")
        for session in reversed(sessions):
            self.print_text(session["session_id"], "bold", end="  ")
            title = session.get("title") or ""
            self._print_escaped(
                f"{_format_time(session['last_activity'])}  {session['current_agent']}  "
                f"{session['message_count']} messages  {title}",
                "",
                "\n",
            )
        if not sessions:
            self.print_notice("There are no sessions yet.")

    def _print_assistant_message(self, chunk: dict[str, Any]) -> None:
        """Print a token, or the part of a whole text that its tokens have not shown yet."""
        content = chunk.get("content")
        if content is None:
            token = chunk.get("token") or ""
            self._streamed += token
            self._print_escaped(token, "", "")
            return
        if self._streamed and content.startswith(self._streamed):
            self._print_escaped(content[len(self._streamed) :], "", "\n")
            self._streamed = ""
        else:
            self.print_text(content)
        for suggestion in (chunk.get("metadata") or {}).get("suggestions") or ():
            self.print_text(f"  - {suggestion}", "cyan")

    def _end_tokens(self) -> None:
        """End the line of the tokens, if there are any."""
        if self._streamed:
            self._streamed = ""
            self.console.print()

    def _print_escaped(self, text: str, style: str, end: str) -> None:
        self.console.print(Text(escape_invisible(text), style), end=end, soft_wrap=True)


def _format_time(timestamp: str) -> str:
    """Return an ISO 8601 timestamp without the parts below the second and without its offset."""
    return timestamp[:19]


def _format_switch(about: dict[str, Any]) -> str:
    reason = f": {about['reason']}" if about.get("reason") else ""
    notes = [f"confidence {about['confidence']}"] if about.get("confidence") else []
    notes += [f"by {about['classification_method']}"] if about.get("classification_method") else []
    suffix = f" ({', '.join(notes)})" if notes else ""
    return f"{about.get('from_agent')} -> {about.get('to_agent')}{reason}{suffix}"


def _format_usage(usage: Counter[str], costs: dict[str, Decimal]) -> str:
    cached = f", {usage['cached_tokens']} of them cached" if usage["cached_tokens"] else ""
    money = "".join(f", {cost.normalize():f} {currency}".rstrip() for currency, cost in costs.items())
    unpriced = f" ({usage['unpriced_calls']} of unknown price)" if usage["unpriced_calls"] else ""
    about = "about " if usage["estimated_calls"] else ""
    return (
        f"{about}{usage['total_tokens']} tokens "
        f"({usage['prompt_tokens']} in{cached}, {usage['completion_tokens']} out), "
        f"model calls: {usage['model_calls']}{unpriced}{money}"
    )


def _shorten_value(value: Any, length: int = MAX_VALUE_LENGTH) -> str:
    """Return the value on one line: a text as it is, anything else as JSON."""
    text = value.replace("\n", "\\n") if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else f"{text[:length]}..."
