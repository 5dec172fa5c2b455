"""Process the lines of the user: messages for the agents, and commands for the IDE."""

import asyncio
import signal
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, nullcontext

from ide.approval import InputInterrupted, LineReader
from ide.chat import Chat
from ide.client import ServiceError

HELP = """\
/agent NAME [message]  hand the conversation to an agent
/history               show the messages of this session
/sessions              list the newest sessions
/resume [ID]           continue a session, or show the state of this one
/grants                list what you allowed in advance
/revoke [ID]           revoke one of them, or all
/new                   start a new session
/cancel                stop the run of this session
/quit                  leave (so does Ctrl-D); Ctrl-C stops watching a run, which continues"""
COMMANDS = {"/help", *(line.split()[0] for line in HELP.splitlines())}


def create_session_id() -> str:
    # 12 hexadecimal digits: short enough to type, and no two sessions of one service get the same.
    return f"ide-{uuid.uuid4().hex[:12]}"


class Repl:
    """The loop that reads lines. `interactive`: a user at a terminal types them, and Ctrl-C stops watching."""

    def __init__(self, chat: Chat, read: LineReader, *, interactive: bool) -> None:
        self.chat, self.read, self.interactive = chat, read, interactive

    async def process_lines(self) -> None:
        """Process lines until /quit or the end of the input."""
        while True:
            try:
                line = (await self.read(f"{self.chat.agent or 'you'}> ")).strip()
                if line and not await self.process_line(line):
                    return
            except EOFError:
                return
            except InputInterrupted:
                self.chat.screen.print_notice("Ctrl-D or /quit leaves.")

    async def process_line(self, line: str) -> bool:
        """Process one line, and return whether more lines may follow."""
        if not self.interactive:
            self.chat.screen.print_text(f"> {line}", "bold")
        if line.split()[0] == "/quit":
            return False
        await self.await_interruptibly(
            self._execute_command(line) if line.startswith("/") else self.chat.send_message(_build_user_message(line))
        )
        return True

    async def await_interruptibly(self, work: Coroutine[None, None, None]) -> None:
        """Await the work, and print what ends it early.

        That is Ctrl-C, in the middle of the work or at a prompt, or an error of the service.
        """
        task = asyncio.create_task(work)
        try:
            with _cancel_on_ctrl_c(task) if self.interactive else nullcontext():
                await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) and current.cancelling():
                raise
            self.chat.screen.print_notice(
                "Stopped watching. The run continues: /resume shows it, /cancel stops it. "
                "Your next message closes a tool call that is still open."
            )
        except InputInterrupted:
            self.chat.screen.print_notice("The approval stays open: /resume asks again, your next message closes it.")
        except ServiceError as error:
            self.chat.has_failed = True
            self.chat.screen.print_error(str(error))

    async def _execute_command(self, line: str) -> None:
        """Execute a line that begins with a slash. An unknown command prints the help."""
        chat, client, screen = self.chat, self.chat.client, self.chat.screen
        match line.split(maxsplit=2):
            case ["/agent", name, *message]:
                await chat.send_message(build_switch_message(name, *message))
            case ["/agent"]:
                screen.print_text("Name an agent: /agent NAME [message].")
                screen.print_notice(f"There are {', '.join(await client.list_agents())}.")
            case ["/history"]:
                screen.print_history((await client.fetch_history(chat.session_id))["messages"])
            case ["/sessions"]:
                screen.print_sessions(**await client.list_sessions())
            case ["/resume", *ids]:
                await chat.resume_session(ids[0] if ids else chat.session_id)
            case ["/grants"]:
                screen.print_grants(await client.list_grants(chat.session_id))
            case ["/revoke", *ids]:
                screen.print_notice(f"Revoked: {await client.revoke_grants(chat.session_id, ids[0] if ids else '')}.")
            case ["/new"]:
                chat.start_session(create_session_id())
            case ["/cancel"]:
                await client.cancel_run(chat.session_id)
                screen.print_notice("The run was stopped.")
            case [command, *_]:
                if command not in COMMANDS:
                    screen.print_error(f"There is no command {command}.")
                screen.print_text(HELP)


def build_switch_message(agent: str, message: str = "") -> dict[str, str]:
    return {"type": "switch_agent", "agent_type": agent} | ({"content": message} if message else {})


def _build_user_message(line: str) -> dict[str, str]:
    return {"type": "user_message", "content": line, "role": "user"}


@contextmanager
def _cancel_on_ctrl_c(task: asyncio.Task[None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
