"""What a measurement comes to: one document for JSON, and its table for people."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import Any

from loadtest.openloop.run import Load, Run
from loadtest.openloop.samples import as_json
from loadtest.openloop.sweep import Bound, Capacity
from loadtest.openloop.target import Target

HEADER = ("", "offered/s", "achieved/s", "p50 ms", "p95", "p99", "p99.9", "errors", "degraded")
WIDE = 116  # letters of a line


@dataclass(slots=True)
class Measured:
    """What was measured of one server."""

    target: Target
    model: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    sweeps: list[Capacity] = field(default_factory=list)

    @property
    def counted(self) -> list[Run]:
        """The runs whose figures are reported: repeats, or those that confirmed a capacity."""
        return self.runs or [run for sweep in self.sweeps if (run := sweep.at_capacity)]


def document(
    measured: Sequence[Measured],
    load: Load,
    bound: Bound | None,
    ratios: dict[str, Any] | None,
    failures: Sequence[str],
    seed: int,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Everything, for JSON; `about` is the machine, as it was before."""
    return as_json(  # type: ignore[no-any-return]
        {
            "what": "augur open-loop load",
            "machine": about,
            "load": {**asdict(load), "seed": seed},
            "bound": asdict(bound) if bound else None,
            "servers": [_server(one) for one in measured],
            "ratios": ratios,
            "remarks": remarks(measured),
            "failures": list(failures),
        }
    )


def _server(one: Measured) -> dict[str, Any]:
    known = {name: one.model.get(name) for name in ("name", "version", "max_history", "description")}
    return {
        "name": one.target.name,
        "url": one.target.url,
        "model": known,
        "shares_the_machine": one.target.same_machine,
        "summary": summary(one.counted),
        "capacities": [sweep.rate for sweep in one.sweeps],
        "runs": [run.as_dict() for run in one.runs],
        "sweeps": [sweep.as_dict() for sweep in one.sweeps],
    }


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Of each figure the median of the repeats, the least and the greatest."""
    if not runs:
        return {}
    found: dict[str, Any] = {}
    for kind in runs[0].as_dict()["kinds"]:
        each = [run.as_dict()["kinds"].get(kind) for run in runs]
        present = [one for one in each if one]
        rows = {"offered": [one["offered"] for one in present], "achieved": [one["achieved"] for one in present]}
        for name in present[0]["percentiles"]:
            rows[name] = [one["percentiles"][name] for one in present]
        for part in present[0]["parts"]:
            for figure in ("mean", "p50", "p99"):
                rows[f"{part} {figure}"] = [one["parts"][part][figure] for one in present if part in one["parts"]]
        found[kind] = {name: _spread(values) for name, values in rows.items()}
        found[kind]["errors"] = _total([one["errors"] for one in present])
        found[kind]["degraded"] = sum(one["degraded"] for one in present)
    found["server_cpu_ms"] = _spread([run.server_cpu_ms for run in runs])
    found["client_cpu_share"] = _spread([run.client_share for run in runs])
    found["lag_p99_ms"] = _spread([run.lag["p99"] for run in runs])
    found["adjacency"] = _spread([run.adjacency for run in runs])
    return found


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return {"median": statistics.median(known), "least": min(known), "greatest": max(known)}


def _total(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    names = sorted({name for one in counts for name in one})
    return {name: sum(one.get(name, 0) for one in counts) for name in names}


def remarks(measured: Sequence[Measured]) -> list[str]:
    """What a reader has to know to judge the figures."""
    found = []
    if any(one.target.same_machine for one in measured):
        found.append("client and server share the machine")
    for one in measured:
        runs = [*one.runs, *(point.run for sweep in one.sweeps for point in sweep.points)]
        if any(run.client_late for run in one.counted):
            worst = max(run.lag["p99"] for run in one.counted)
            found.append(f"{one.target.name}: the client sent late (p99 {worst:.1f} ms); latencies include it")
        if any(run.client_share > 0.8 for run in one.counted):
            found.append(f"{one.target.name}: the client was short of CPU; use more --workers or another machine")
        if any(run.waited for run in runs):
            found.append(f"{one.target.name}: requests waited for a connection (--connections)")
        if len(one.counted) < 3:
            found.append(f"{one.target.name}: {len(one.counted)} repeats; fewer than three say little")
    return found


def text(document: dict[str, Any], *, notes: bool = True) -> str:
    """The table for people."""
    lines = [*where(document["machine"]), *_offered(document)]
    for server in document["servers"]:
        lines += ["", _title(server), _row(HEADER)]
        for kind in ("score", "behaviors", "large", "probe"):
            if kind in server["summary"]:
                lines.append(_row((f"  {kind}", *cells(server["summary"][kind]))))
        lines += _below(server)
    if document["ratios"]:
        lines += ["", "second by first, round by round: median (least to greatest)"]
        lines += [f"  {name:<24}{spread(value)}" for name, value in document["ratios"].items()]
    if notes:
        lines += ["", *(f"note: {remark}" for remark in document["remarks"])]
        lines += [f"FAILED: {failure}" for failure in document["failures"]]
    return "\n".join(lines)


def where(about: dict[str, Any]) -> list[str]:
    """Hardware and versions, a line each."""
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    machine = f"{about['cpu']}, {about['cores']} cores, governor {about['governor']}, {about['memory_gib']} GiB"
    return [
        *wrap(f"{machine}, {about['system']}; load before: {about['load_before']}", WIDE),
        *wrap(f"Python {about['python']}, {packages}; commit {about['commit']}", WIDE),
    ]


def _offered(document: dict[str, Any]) -> list[str]:
    """What was asked, and how often."""
    load, server = document["load"], document["servers"][0]
    content, repeats = load["content"], len(server["sweeps"] or server["runs"])
    arrivals = "the log's arrivals" if load["replay"] else "Poisson arrivals"
    rate = f"a sweep from {load['rate']:g}/s" if server["sweeps"] else f"{load['rate']:g}/s"
    many = f"{content['candidates'] or '50 to 200'} candidates"
    history = f"histories of {content['history']} sent along" if content["history"] is not None else "stored histories"
    history += f" of {content['stored']}" if content["stored"] else ""
    adjacent = f", adjacency {load['adjacency']:.0%}{' of strangers' if content['strangers'] else ''}"
    return wrap(
        f"{repeats} repeats of {load['seconds']:g} s after {load['warmup']:g} s of warm-up; {arrivals}, {rate}; "
        f"{many}, {history}, {content['users']} users{adjacent if load['adjacency'] else ''}; seed {load['seed']}",
        WIDE,
    )


def _title(server: dict[str, Any]) -> str:
    model = server["model"]
    served = f"model {model['name']}, digest {model['version']}" if model["name"] else "model unknown"
    title = f"{server['name']}  {server['url']}  {served}"
    rates = [f"{rate:.1f}" for rate in server["capacities"]]
    return f"{title}  capacity {', '.join(rates)} requests/s" if rates else title


def cells(kind: dict[str, Any]) -> list[str]:
    """A row of the table."""
    figures = [kind[name] for name in ("offered", "achieved", "p50", "p95", "p99", "p99.9")]
    errors = ", ".join(f"{count} {name}" for name, count in kind["errors"].items()) or "0"
    return [f"{one['median']:.2f}" if one else "-" for one in figures] + [errors, str(kind["degraded"])]


def _row(cells: Sequence[str]) -> str:
    return f"{cells[0]:<12}" + "".join(f"{cell:>11}" for cell in cells[1:])


def _below(server: dict[str, Any]) -> list[str]:
    found = server["summary"]
    if not found:
        return ["  no run kept the bound"]
    score = found.get("score", {})
    parts = [
        f"{name} {spread(score[f'{name} mean'])}" for name in ("queue", "store", "compute") if f"{name} mean" in score
    ]
    cost, lag, share = (spread(found[name]) for name in ("server_cpu_ms", "lag_p99_ms", "client_cpu_share"))
    return [
        f"  p99 of each repeat: {spread(score.get('p99'))} ms; server CPU a request: {cost} ms",
        f"  server's own time: {', '.join(parts)} ms (means)" if parts else "  no Server-Timing",
        f"  client: CPU {share} of its cores, late by {lag} ms (p99); same-user adjacency {spread(found['adjacency'])}",
    ]


def spread(value: dict[str, float] | None) -> str:
    """A median with its range."""
    if value is None:
        return "unknown"
    return f"{value['median']:.3g} ({value['least']:.3g} to {value['greatest']:.3g})"
