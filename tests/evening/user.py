"""The user's side of the evening: the terminal IDE over real files, with the recorded input."""

import io
from collections import deque
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from ide.approval import Approver, InputInterrupted
from ide.chat import Chat
from ide.client import ServiceClient
from ide.repl import Repl
from ide.screen import Screen
from ide.workspace import Workspace
from tests.evening.recording import CTRL_C, RecordedTurn
from tests.support.service import API_KEY


class RecordingScreen(Screen):
    """A screen that records the codes of the errors that it shows."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), width=200))
        self.errors: list[str] = []

    def show_chunk(self, chunk: dict[str, Any]) -> None:
        super().show_chunk(chunk)
        if chunk["type"] == "error":
            self.errors.append(chunk["metadata"]["code"])


class User:
    def __init__(self, url: str, folder: Path, session_id: str) -> None:
        self._screen = RecordingScreen()
        self._answers: deque[str] = deque()
        self._failures: list[str] = []
        workspace = Workspace(folder)
        self._client = ServiceClient(url, API_KEY, delays=(), notice=self._screen.print_notice)
        approver = Approver(self._screen, workspace, self._read_input)
        chat = Chat(self._client, workspace, self._screen, approver, session_id)
        self._loop = Repl(chat, self._read_input, interactive=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.http.aclose()

    async def play_turn(self, turn: RecordedTurn) -> list[str]:
        """Type the recorded input of a turn; return the differences from the recording."""
        self._screen.errors.clear()
        self._answers = deque(turn.user_inputs)
        self._failures = []
        for line in [*turn.before, turn.user]:
            await self._loop.process_line(line)
        if self._answers:
            self._failures.append(f"the user was not asked for {[*self._answers]}")
        if self._screen.errors != turn.errors:
            self._failures.append(f"the user saw {self._screen.errors}, and recorded is {turn.errors}")
        return self._failures

    async def _read_input(self, prompt: str) -> str:
        if not self._answers:
            self._failures.append(f"nothing is recorded for {prompt!r}")
            raise InputInterrupted
        answer = self._answers.popleft()
        if answer == CTRL_C:
            raise InputInterrupted
        return answer
