"""What both servers of this folder share: uvicorn on uvloop and httptools, and the line that says where."""

from __future__ import annotations

import argparse
import socket
from typing import Any

import uvicorn

KEEP_ALIVE_SECONDS = 75


def add_address(parser: argparse.ArgumentParser) -> None:
    """The options of an address."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8001, help="port to listen on; 0 takes a free one (8001)")


def serve(app: Any, host: str, port: int) -> None:
    """Serves an ASGI application until told to stop."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    with socket.create_server((host, port)) as listener:
        # Connections wait in the listener's queue until uvicorn takes them.
        print(f"serving http://{host}:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([listener])
