"""A run that is cancelled at any step leaves a thread that works."""

import asyncio
from itertools import repeat
from pathlib import Path

import pytest

from tests.scripted import calls, model, says
from tests.service import service, settings_for, text
from tests.test_properties import check_sent_to_the_model, check_sound

pytestmark = pytest.mark.anyio


async def test_at_any_step(tmp_path: Path) -> None:
    lines = {"human": calls("write_file", call_id=None, path="a.py", content="x"), "tool": says("Done.")}
    llm = model(*repeat(lambda messages: lines[messages[-1].type], 400))
    async with service(llm, settings_for(tmp_path)) as client:
        for steps in range(0, 240, 6):
            session = client.session(f"s-{steps}")
            asking = asyncio.create_task(session.switch("coder", content="Write a.py"))
            for _ in range(steps):
                await asyncio.sleep(0)
            await client.http.post(f"/sessions/{session.id}/cancel")
            chunks = await asking
            assert (chunks[-1]["type"], chunks[-1].get("metadata", {}).get("code")) in (
                ("tool_call", None),
                ("error", "cancelled"),
            )
            await client.http.post(f"/sessions/{session.id}/cancel")
            assert check_sound(await session.history()) == []
            asked = (await session.user("Write it again"))[-1]
            assert (await session.decide("reject", asked["call_id"]))[-1] == text("Done.")
    for heard in llm.heard:
        check_sent_to_the_model(heard)
