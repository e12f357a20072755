"""What becomes of a request after its answer: it is counted, and gets a line if the settings ask for one.

Lines have the template of a route and never its path, in which the id of a user can stand.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import Scope

from service.settings import Settings
from service.tallies import Tallies
from service.visit import Visit

access_log = logging.getLogger("augur.access")
slow_log = logging.getLogger("augur.slow")

UNMATCHED = "unmatched"
GONE = 499


class Witness:
    """Of one server."""

    def __init__(self, settings: Settings, tallies: Tallies) -> None:
        self._tallies = tallies
        self._lines = bool(settings.access_log)
        self._slow = settings.slow_ms / 1e3 or float("inf")

    def note(self, scope: Scope, visit: Visit, route: str | None) -> None:
        """A request was answered; `route` if the door knows it already."""
        seconds = time.perf_counter() - visit.begun
        if route is None:
            route = template(scope)
        self._tallies.answered(route, visit.status or GONE, seconds)
        scope["augur.route"] = route
        if self._lines or seconds > self._slow:
            self._say(scope, visit, route, seconds)

    def _say(self, scope: Scope, visit: Visit, route: str, seconds: float) -> None:
        status, ms = visit.status or GONE, round(seconds * 1e3, 3)
        fields = {"method": scope["method"], "route": route, "status": status, "ms": ms}
        said = f"{scope['method']} {route} {status} in {ms:.3f} ms"
        if visit.key is not None:
            fields["key"] = visit.key
            said += f", key {visit.key}"
        if self._lines:
            access_log.info("%s", said, extra={"fields": fields})
        if seconds > self._slow:
            stages = _stages(visit)
            where = ", ".join(f"{name} {value:g}" for name, value in stages.items()) or "nothing scored"
            slow_log.warning("slow: %s; %s", said, where, extra={"fields": fields | stages})


def template(scope: Scope) -> str:
    """The route that answered, as it is written in the code."""
    path = getattr(scope.get("route"), "path_format", None)
    if path:
        return str(path)
    # Mounted files.
    mounted: str = scope.get("app_root_path", "")
    inner: str = scope.get("root_path", "")
    return inner[len(mounted) :] or UNMATCHED


def _stages(visit: Visit) -> dict[str, Any]:
    """Where the time went, in milliseconds: of the scored request that took longest, if several were in it."""
    if not visit.scored:
        return {}
    job, scored = max(visit.scored, key=lambda pair: pair[1].queued + pair[1].store + pair[1].computed)
    return {
        "queue_ms": round(scored.queued * 1e3, 3),
        "store_ms": round(scored.store * 1e3, 3),
        "compute_ms": round(scored.computed * 1e3, 3),
        "candidates": len(job.item_ids),
        "history_length": scored.history_length,
    }
