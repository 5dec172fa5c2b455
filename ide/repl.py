"""Line by line: a message for the agents, or a command for the IDE."""

import asyncio
import signal
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, nullcontext

from ide.approval import Ask, Stopped
from ide.chat import Chat
from ide.client import ServiceError

HELP = """\
/agent NAME [message]  hand the conversation to an agent
/history               the messages of this session
/sessions              the newest sessions
/resume [ID]           go on with a session, or see where this one stands
/grants                what you allowed in advance
/revoke [ID]           take one of it back, or all
/new                   begin a session
/cancel                stop what this session is doing
/quit                  leave (so does Ctrl-D); Ctrl-C stops watching a run, which goes on"""
COMMANDS = {"/help", *(line.split()[0] for line in HELP.splitlines())}


def new_session_id() -> str:
    return f"ide-{uuid.uuid4().hex[:12]}"


class Loop:
    def __init__(self, chat: Chat, read: Ask, *, interactive: bool) -> None:
        self.chat, self.read, self.interactive = chat, read, interactive

    async def run(self) -> None:
        """Until /quit or the end of the input."""
        while True:
            try:
                line = (await self.read(f"{self.chat.agent or 'you'}> ")).strip()
                if line and not await self.take(line):
                    return
            except EOFError:
                return
            except Stopped:
                self.chat.screen.notice("Ctrl-D or /quit leaves.")

    async def take(self, line: str) -> bool:
        """Whether to go on after this line."""
        if not self.interactive:
            self.chat.screen.say(f"> {line}", "bold")
        if line.split()[0] == "/quit":
            return False
        await self.watched(self._command(line) if line.startswith("/") else self.chat.say(_message(line)))
        return True

    async def watched(self, work: Coroutine[None, None, None]) -> None:
        """Ctrl-C ends the watching; a service that cannot be reached ends the work."""
        task = asyncio.create_task(work)
        try:
            with _on_ctrl_c(task) if self.interactive else nullcontext():
                await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) and current.cancelling():
                raise
            self.chat.screen.notice(
                "Stopped watching. What the service is doing goes on: /resume shows it, /cancel stops it. "
                "A tool call left open is closed by your next message."
            )
        except Stopped:
            self.chat.screen.notice("The approval stays open: /resume asks again, your next message closes it.")
        except ServiceError as error:
            self.chat.failed = True
            self.chat.screen.error(str(error))

    async def _command(self, line: str) -> None:
        chat, client, screen = self.chat, self.chat.client, self.chat.screen
        match line.split(maxsplit=2):
            case ["/agent", name, *message]:
                await chat.say(switch(name, *message))
            case ["/agent"]:
                screen.say("Name an agent: /agent NAME [message].")
                screen.notice(f"There are {', '.join(await client.agents())}.")
            case ["/history"]:
                screen.history((await client.history(chat.session_id))["messages"])
            case ["/sessions"]:
                screen.sessions(**await client.sessions())
            case ["/resume", *ids]:
                await chat.resume(ids[0] if ids else chat.session_id)
            case ["/grants"]:
                screen.grants(await client.grants(chat.session_id))
            case ["/revoke", *ids]:
                screen.notice(f"Taken back: {await client.revoke(chat.session_id, ids[0] if ids else '')}.")
            case ["/new"]:
                chat.begin(new_session_id())
            case ["/cancel"]:
                await client.cancel(chat.session_id)
                screen.notice("Stopped.")
            case [command, *_]:
                if command not in COMMANDS:
                    screen.error(f"There is no command {command}.")
                screen.say(HELP)


def switch(agent: str, message: str = "") -> dict[str, str]:
    return {"type": "switch_agent", "agent_type": agent} | ({"content": message} if message else {})


def _message(line: str) -> dict[str, str]:
    return {"type": "user_message", "content": line, "role": "user"}


@contextmanager
def _on_ctrl_c(task: asyncio.Task[None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
