"""Wait for a state of a session that its view shows."""

from tests.support.eventually import eventually
from tests.support.service import SessionClient


async def wait_for_queue(session: SessionClient, messages: int) -> None:
    """Wait until so many messages wait behind the session's run."""

    async def are_queued() -> bool:
        return bool((await session.get("/sessions/{id}/view"))["waiting"] == messages)

    await eventually(are_queued, f"{messages} messages wait behind the run of {session.id}")


async def wait_until_idle(session: SessionClient) -> None:
    """Wait until no run of the session is running."""

    async def is_idle() -> bool:
        return not (await session.get("/sessions/{id}/view"))["running"]

    await eventually(is_idle, f"the run of {session.id} has ended")
