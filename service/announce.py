"""What a server says of itself when it starts: as lines for a person, or as one JSON object."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import time
from typing import Any

from service.engine import Engine
from service.settings import Settings, key_pairs
from service.stores import redact

log = logging.getLogger("augur")


def access(settings: Settings) -> str:
    """Who may ask, in a few words."""
    users, admins = (len(key_pairs(text)) for text in (settings.api_keys, settings.admin_keys))
    return f"{users} API keys and {admins} admin keys" if users else f"open to all, {admins} admin keys"


def warn_if_open(settings: Settings, listener: socket.socket) -> None:
    """Says so when everybody who reaches more than this machine's own address can use the server."""
    address = listener.getsockname()[0]
    if not settings.api_keys.strip() and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        log.warning("AUGUR_API_KEYS is not set: whoever reaches %s can score, and read and delete histories", address)


def as_json(engine: Engine, version: str, url: str, seeded_users: int, example: str) -> str:
    """The facts of the start line, for those who collect logs."""
    settings = engine.settings
    models: list[dict[str, Any]] = [
        {
            "name": each.name,
            "version": each.version,
            "description": each.scorer.description,
            "backend": each.scorer.backend,
            "precision": each.scorer.precision,
        }
        for each in engine.models
    ]
    said = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "level": "info",
        "logger": "augur",
        "message": "serving",
        "version": version,
        "url": url,
        "models": models,
        "store": redact(settings.store),
        "window": settings.window,
        "seeded_users": seeded_users,
        "lanes": settings.compute_lanes,
        "threads": settings.threads,
        "max_items": settings.max_items,
        "queue_candidates": settings.queue_candidates,
        "max_connections": settings.max_connections,
        "receive_seconds": settings.receive_seconds,
        "api_keys": len(key_pairs(settings.api_keys)),
        "admin_keys": len(key_pairs(settings.admin_keys)),
        "traces": bool(settings.traces),
        "try": example,
    }
    return json.dumps(said)
