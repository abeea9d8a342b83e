"""The page at `/`: its files as they are, and the headers that let it do nothing but speak to this server.

What the page does is in page/*.js; this file knows no audio and no words.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from asr.serving.server import Service

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # after an update of the server its files have to fit each other
}


def routes(service: Service) -> list[BaseRoute]:
    """Open to everybody: the page has to be there before it can ask for the token."""

    async def about(request: Request) -> Response:
        config, decoding = service.config, service.bundle.decoding
        facts = {"model": config.model, "token": config.token is not None, "hotwords": decoding.beam > 1}
        return JSONResponse(facts, headers=HEADERS)

    files = {f"/page/{path.name}": path for path in FOLDER.iterdir()}
    files["/"] = files.pop("/page/index.html")
    served: list[BaseRoute] = [Route(url, _file(path), methods=["GET"]) for url, path in files.items()]
    return [Route("/page/about.json", about), *served]


def _file(path: Path) -> Response:
    """A response is an endpoint of ASGI too: this one says the same to everybody."""
    return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=HEADERS)
