"""A run that is cancelled at any step leaves a thread that works."""

import asyncio
from itertools import repeat
from pathlib import Path

import pytest

from tests.support.conversations import check_conversation, check_model_input
from tests.support.scripted import call_tool, make_model, say_text
from tests.support.service import settings_for, start_service, text_chunk


@pytest.mark.slow
async def test_session_works_after_a_cancel_at_any_step(tmp_path: Path) -> None:
    lines = {"human": call_tool("write_file", call_id=None, path="a.py", content="x"), "tool": say_text("Done.")}
    llm = make_model(*repeat(lambda messages: lines[messages[-1].type], 400))
    async with start_service(llm, settings_for(tmp_path)) as client:
        for steps in range(0, 240, 6):
            session = client.open_session(f"s-{steps}")
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
            assert check_conversation(await session.fetch_history()) == []
            asked = (await session.send_text("Write it again"))[-1]
            assert (await session.decide("reject", asked["call_id"]))[-1] == text_chunk("Done.")
    for heard in llm.prompts:
        check_model_input(heard)
