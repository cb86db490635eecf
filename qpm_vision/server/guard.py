"""Who may ask for what: only a page that this server gave to a browser of this machine.

Any web page can let a browser send requests to 127.0.0.1, and any name can be made to point there. So the host must be
this one by its own name, requests that come from other pages are refused, and all but the assets of the pages and the
framed report, which has a ticket of its own, needs the token that `qpm-vision serve` prints, which other pages and
other users do not know.
"""

from __future__ import annotations

import secrets
from html import escape

from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["FRAME", "MOST_BYTES", "TOKEN_HEADER", "Guard"]

MOST_BYTES = 1_000_000
"""Size of the largest body that is read."""

TOKEN_HEADER = "x-qpm-token"

FRAME = "/frame/"
"""What the address of the framed report begins with; its ticket follows."""

_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_FREE = ("/assets/", FRAME)
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Refuses requests before the application sees them, and limits what an answer may be used for.

    Args:
        app: The application.
        token: What requests must know.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":  # no WebSockets here; the start and the end of the server pass
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        secured = _secured(send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        body = None if refusal is not None else await _body(receive)
        if body is None:
            status, message = refusal or (413, f"The body must have at most {MOST_BYTES:,} bytes.")
            answer = _page(message, status) if "text/html" in headers.get("accept", "") else _record(message, status)
            await answer(scope, receive, secured)
            return

        rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return rest.pop() if rest else await receive()  # what follows is that the client leaves

        await self._app(scope, replay, secured)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
            return 403, f"The host must be 127.0.0.1 or localhost. Got {host!r}."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        opened = scope["method"] == "GET" and headers.get("sec-fetch-dest") == "document"  # a link that was followed
        if (origin is not None and origin != f"http://{host}") or (site not in ("same-origin", "none") and not opened):
            return 403, "Requests of other web pages are refused."
        given = headers.get(TOKEN_HEADER) or QueryParams(scope["query_string"]).get("token", "")
        if not scope["path"].startswith(_FREE) and not secrets.compare_digest(given.encode(), self._token.encode()):
            return 403, (
                "The token is missing or is that of a server that has ended. Open the address that `qpm-vision serve` "
                "printed; what was entered in this tab is kept."
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return 413, f"The body must have at most {MOST_BYTES:,} bytes. Got {length[:20]}."
        return None


def _record(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status_code=status)


def _page(message: str, status: int) -> Response:
    """The same for a person who has opened the address in a browser."""
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Refused</title><p>{escape(message)}</p></html>'
    return HTMLResponse(page, status_code=status)


async def _body(receive: Receive) -> bytes | None:
    """The body of a request, None where it is too large; a body without a length is counted as it comes."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # the client has left
            break
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _secured(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in present),
            ]
        await send(message)

    return send_with_headers
