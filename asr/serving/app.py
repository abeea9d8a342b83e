"""All protocols of the server as one application on one port, and what its operator asks it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from asr.serving import native, openai_http, openai_realtime, page, vosk
from asr.serving.refusal import Refusal
from asr.serving.server import Service


def app(service: Service) -> Starlette:
    modules = (native, vosk, openai_http, openai_realtime, page)
    routes: list[BaseRoute] = [route for module in modules for route in module.routes(service)]
    return Starlette(routes=[*routes, *status(service)])


def status(service: Service) -> list[BaseRoute]:
    async def health(request: Request) -> Response:
        """Open to everybody, since what asks is a load balancer."""
        word = "draining" if service.draining.done() else "ok"
        streams = len(service.batcher.streams)
        return JSONResponse({"status": word, "streams": streams}, 200 if word == "ok" else 503)

    async def metrics(request: Request) -> Response:
        try:
            service.authorise(request)
        except Refusal as refusal:
            return PlainTextResponse(f"{refusal}\n", refusal.status)
        return PlainTextResponse(service.report(), media_type="text/plain; version=0.0.4")

    return [Route("/healthz", health), Route("/metrics", metrics)]
