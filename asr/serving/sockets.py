"""What websocket protocols share: letting a client in, hearing it, closing with a reason when refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asr.errors import UserError
from asr.serving.refusal import Refusal
from asr.serving.server import Service, Session

LONGEST = 123  # bytes that a close frame holds beside its code (RFC 6455, 5.5)


async def attend(
    service: Service, websocket: WebSocket, protocol: str, talk: Callable[[Session], Awaitable[None]]
) -> None:
    """Run `talk`, which accepts the websocket, for a client that may come in; closes in the end.

    Refused before it is accepted, the handshake fails with an HTTP status; later on there is a close frame.
    """
    try:
        service.authorise(websocket)
        async with service.admit(address(websocket), protocol) as session:
            await talk(session)
        await websocket.close()
    except WebSocketDisconnect:
        pass  # the client has gone, maybe amid a message of ours
    except UserError as error:
        refusal = error if isinstance(error, Refusal) else Refusal("bad_message", str(error))
        if websocket.application_state == WebSocketState.CONNECTING:
            response = PlainTextResponse(f"{refusal}\n", refusal.status, headers=retry(refusal))
            await websocket.send_denial_response(response)
        elif websocket.application_state == WebSocketState.CONNECTED:
            await websocket.close(refusal.close_code, str(refusal).encode()[:LONGEST].decode(errors="ignore"))


async def receive(session: Session, websocket: WebSocket) -> str | bytes:
    """The client's next message. Raises WebSocketDisconnect, and Refusal when its time is up."""
    message = await session.wait(websocket.receive())
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    data = message.get("bytes")
    return message["text"] if data is None else data


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancelled, and what it failed with is nobody's concern any more."""
    if task:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def retry(refusal: Refusal) -> dict[str, str]:
    """The header that tells HTTP clients when to come again."""
    return {} if refusal.retry_after is None else {"retry-after": f"{max(1, round(refusal.retry_after))}"}


def address(connection: HTTPConnection) -> str:
    """By which a client's streams are counted."""
    return connection.client.host if connection.client else "unknown"
