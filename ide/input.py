"""Read the lines of the user, from a terminal or a pipe."""

import asyncio
import termios
from contextlib import suppress
from threading import Thread

from prompt_toolkit import PromptSession
from prompt_toolkit.input.typeahead import clear_typeahead

from ide.approval import InputInterrupted, LineReader


def create_terminal_reader(*, allow_typeahead: bool = True) -> LineReader:
    """Return a reader with line editing and a history of its own.

    Without `allow_typeahead` it drops what was typed before the prompt, since that is no answer to it.
    """
    session: PromptSession[str] = PromptSession()

    async def read_line(prompt: str) -> str:
        if not allow_typeahead:
            clear_typeahead(session.app.input)
            termios.tcflush(session.app.input.fileno(), termios.TCIFLUSH)
        try:
            return await session.prompt_async(prompt, handle_sigint=False)
        except KeyboardInterrupt:
            raise InputInterrupted from None

    return read_line


def create_pipe_reader(descriptor: int = 0) -> LineReader:
    """Return a reader of the lines of a pipe. It shows no prompt.

    A thread reads the pipe, so that waiting for a line does not block the event loop. Needs a running event loop.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def read_pipe() -> None:
        with open(descriptor, "rb", buffering=0, closefd=False) as source, suppress(RuntimeError):  # the loop has ended
            while line := source.readline():
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, b"")

    async def read_line(_: str) -> str:
        if not (line := await lines.get()):
            raise EOFError
        return line.decode("utf-8", "replace")

    Thread(target=read_pipe, daemon=True).start()
    return read_line
