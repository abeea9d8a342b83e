"""What sessions promise to the protocols beside what their clients see."""

from __future__ import annotations

import asyncio

import pytest

from asr.bundle import Bundle
from asr.serving.config import ServeConfig
from asr.serving.server import Service


def test_a_delivery_that_is_cancelled_as_it_ends_is_cancelled(babbler: Bundle) -> None:
    """Else the task that delivers goes on, and whoever has cancelled it waits for ever."""

    async def deliver() -> None:
        async with Service(babbler, ServeConfig()) as service, service.admit("here", "test") as session:
            sent = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(session.deliver(sent))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            sent.set_result(None)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(deliver())
