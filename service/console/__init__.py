"""The console at `/`: a page that asks the API as any client does. Read once, served from memory, to anyone.

Only data takes a key, which the page asks for. Assets lie below a digest of all of them, to be kept for good.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from hashlib import blake2b
from importlib.resources import files

from starlette.types import ASGIApp, Receive, Scope, Send

from service.visit import Header

TYPES = {".html": b"text/html", ".css": b"text/css", ".js": b"text/javascript", ".svg": b"image/svg+xml"}
PAGE = "index.html"
# All of it from this server, nothing within the page itself, and no text that becomes markup.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
OF_PAGE = (
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
)
OF_ASSETS = ((b"cache-control", b"public, max-age=31536000, immutable"),)


class Asset:
    """One file, in both forms it is sent in."""

    def __init__(self, content: bytes, kind: bytes, headers: Sequence[Header]) -> None:
        self._plain, self._packed = content, gzip.compress(content, mtime=0)
        self._etag = b'W/"%s"' % _digest(content).encode()
        self._headers = [
            (b"content-type", kind + b"; charset=utf-8"),
            (b"etag", self._etag),
            (b"vary", b"accept-encoding"),
            *headers,
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; GET and HEAD."""
        asked = dict(scope["headers"])
        headers, body, status = list(self._headers), self._plain, 200
        if b"gzip" in asked.get(b"accept-encoding", b""):
            headers.append((b"content-encoding", b"gzip"))
            body = self._packed
        if asked.get(b"if-none-match") == self._etag:
            body, status = b"", 304
        else:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def assets() -> dict[str, ASGIApp]:
    """What answers each path of the console."""
    folder = files(__name__)
    content = {each.name: each.read_bytes() for each in folder.iterdir() if _suffix(each.name) in TYPES}
    base = f"/console/{_digest(*(content[name] for name in sorted(content)))}"
    page = content.pop(PAGE).replace(b"{assets}", base.encode())
    found: dict[str, ASGIApp] = {"/": Asset(page, TYPES[".html"], OF_PAGE)}
    for name, each in content.items():
        found[f"{base}/{name}"] = Asset(each, TYPES[_suffix(name)], OF_ASSETS)
    return found


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _digest(*parts: bytes) -> str:
    return blake2b(b"".join(parts), digest_size=8).hexdigest()
