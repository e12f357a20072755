"""`python -m loadtest.baseline.echo`: sends a body back. What HTTP alone costs under uvicorn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from loadtest.baseline.serving import add_address, serve


async def echo(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """ASGI: status 200 with the request's own body."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.baseline.echo", description="Sends bodies back.")
    add_address(parser)
    chosen = parser.parse_args(arguments)
    serve(echo, chosen.host, chosen.port)


if __name__ == "__main__":
    main()
