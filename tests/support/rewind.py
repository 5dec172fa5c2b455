"""Undo a turn, for tests of several rooms."""

from typing import Any

from tests.support.service import SessionClient


async def undo_last_turn(session: SessionClient) -> dict[str, Any]:
    """Undo the last turn and return the answer. Raises httpx.HTTPStatusError if there is none."""
    response = await session.http.post(f"/sessions/{session.id}/undo")
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer
