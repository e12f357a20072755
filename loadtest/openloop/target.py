"""The server that is measured, as it tells of itself: its models, its metrics."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from loadtest.openloop import machine
from loadtest.openloop.bodies import Served

SAMPLE_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
OPENER = build_opener(ProxyHandler({}))


class TargetError(RuntimeError):
    """A server that cannot be asked what a load has to know."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the process that it is, where that is known."""

    url: str
    pid: int | None = None
    name: str = "server"
    path: str = "/v1/score"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    @property
    def same_machine(self) -> bool:
        """Whether it shares the machine with the client."""
        return machine.is_here(self.address[0])

    def model(self) -> dict[str, Any]:
        """What it serves; nothing of a server that does not say. Raises TargetError where nobody answers."""
        text = self._get("/v1/models")
        try:
            found: dict[str, Any] = json.loads(text)["models"][0]
        except (ValueError, LookupError, TypeError):
            return {}
        return found

    def served(self) -> Served:
        """What requests have to know."""
        model, (host, port) = self.model(), self.address
        fields = tuple(model.get("context_fields", ()))
        actions = tuple(model.get("actions", ()))
        named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return Served(named, fields, actions, self.path, checked=bool(model))

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Its counters by name: labels and value of each. None of a server without /metrics."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for name, labels, value in SAMPLE_LINE.findall(self._get("/metrics") or ""):
            found.setdefault(name, []).append((dict(LABEL.findall(labels)), float(value)))
        return found

    def tell(self, data: bytes) -> None:
        """Posts behaviours. Raises TargetError when it does not take them."""
        body = data.partition(b"\r\n\r\n")[2]
        self._open(Request(f"{self.url}/v1/behaviors", body, {"content-type": "application/json"}))

    def _get(self, path: str) -> str:
        try:
            return self._open(f"{self.url}{path}")
        except TargetError as error:
            if isinstance(error.__cause__, HTTPError):
                return ""
            raise

    def _open(self, request: str | Request) -> str:
        try:
            with OPENER.open(request, timeout=30) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except (OSError, ValueError) as error:
            where = request if isinstance(request, str) else request.full_url
            raise TargetError(f"{where}: {error}") from error


Histogram = dict[str, float]  # upper bound of a bucket, as the server writes it, to how many were in it


def batch_histograms(
    before: dict[str, list[tuple[dict[str, str], float]]], after: dict[str, list[tuple[dict[str, str], float]]]
) -> dict[str, Histogram]:
    """What came into each histogram of batches between two looks, by its name without `_bucket`."""
    found: dict[str, Histogram] = {}
    for name, lines in after.items():
        if not name.endswith("_bucket") or "batch" not in name:
            continue
        was, now = _by_bound(before.get(name, [])), _by_bound(lines)
        grown = [(bound, value - was.get(bound, 0)) for bound, value in now.items()]
        grown.sort(key=lambda one: float(one[0].replace("+Inf", "inf")))
        below = [0.0, *(value for _, value in grown)]
        found[name.removesuffix("_bucket")] = {
            bound: value - less for (bound, value), less in zip(grown, below, strict=False)
        }
    return found


def grown(
    before: dict[str, list[tuple[dict[str, str], float]]], after: dict[str, list[tuple[dict[str, str], float]]]
) -> dict[str, float]:
    """By how much the counters without labels grew between two looks, by name without `_total`."""
    found = {}
    for name, lines in after.items():
        if name.endswith("_total") and len(lines) == 1 and not lines[0][0]:
            found[name.removesuffix("_total")] = lines[0][1] - sum(value for _, value in before.get(name, []))
    return found


def _by_bound(lines: list[tuple[dict[str, str], float]]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for labels, value in lines:
        bound = labels.get("le", "+Inf")
        summed[bound] = summed.get(bound, 0) + value
    return summed
