"""Results of the parts as tables: every figure as its command left it, in JSON or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from loadtest.openloop.table import HEADER as OPEN_LOOP
from loadtest.openloop.table import cells, spread

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text, the first column's to the left; and what is to be known of them."""

    header: Row
    rows: Sequence[Row]
    note: str = ""


def read(file: Path) -> Any:
    """A part's JSON."""
    return json.loads(file.read_text())


def shown(value: float | None, digits: int = 3) -> str:
    """A number as people read it; nothing for none."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def listed(values: Iterable[float | None]) -> str:
    """Of each round."""
    return " / ".join(shown(value) or "-" for value in values)


def kernels(folder: Path) -> list[Table]:
    """Of `kernels.bench`: contenders of a case, growth, and what was to be reached."""
    found = read(folder / "bench.json")
    cases = [list(each) for _, each in groupby(found["results"], _case)]
    first = {each[0]["device"]: each for each in reversed(cases) if each[0]["operation"] == "evolve"}
    whole = [each for each in cases if each[0]["operation"] != "evolve" or each is first[each[0]["device"]]]
    tables = [_contenders(each) for each in whole]
    grown = [each for each in cases if each[0]["operation"] == "evolve" and len(cases) > len(whole)]
    for device in sorted({each[0]["device"] for each in grown}):
        tables.append(_growth([each for each in grown if each[0]["device"] == device]))
    rows = [
        (one["what"], shown(one["target"]), f"{shown(one['measured'])} ({shown(one['best'])})", _met(one))
        for one in found["targets"]
    ]
    header = ("what was to be reached", "at least", "median of rounds (best against best)", "")
    return [*tables, Table(header, rows)] if rows else tables


def _case(one: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(one[name] for name in ("operation", "device", "users", "candidates", "steps", "hidden"))


def _met(one: dict[str, Any]) -> str:
    return f"not measured: {one['reason']}" if one["met"] is None else "met" if one["met"] else "not met"


def _contenders(case: list[dict[str, Any]]) -> Table:
    operation, device, users, candidates, steps, hidden = _case(case[0])
    timed = [one for one in case if "median_ms" in one]
    than = timed[0]["than"] if timed else "none"
    what = f"`{operation}`, {device.upper()}, {users} x {candidates} x {steps}, hidden {hidden}"
    rows = [
        (
            f"`{one['contender']}` ({one['meaning']})",
            shown(one["median_ms"]),
            shown(one["least_ms"]),
            f"{one['times_faster']:.2f}",
            f"{one['share_of_peak']:.0%} ({one['share_of_peak_by_best']:.0%})" if "share_of_peak" in one else "",
            f"{one['largest_error']:.1e}",
        )
        for one in timed
    ]
    reasons = _reasons([one for one in case if "not_run" in one])
    header = (what, "median ms", "least ms", f"times faster than `{than}`", "of FMA peak: median (best)", "error")
    return Table(header, rows, reasons)


def _reasons(missing: list[dict[str, Any]]) -> str:
    """Who was not run, by the reason."""
    why = dict.fromkeys(one["not_run"] for one in missing)
    names = {each: ", ".join(one["contender"] for one in missing if one["not_run"] == each) for each in why}
    return "Not run: " + "; ".join(f"{names[each]} ({each})" for each in why) if why else ""


def _growth(cases: list[list[dict[str, Any]]]) -> Table:
    """Median ms by size, of those that were timed at several."""
    names = list(dict.fromkeys(one["contender"] for case in cases[1:] for one in case if "median_ms" in one))
    rows = []
    for case in sorted(cases, key=lambda each: _case(each[0])):
        _, _, users, candidates, steps, hidden = _case(case[0])
        times = {one["contender"]: one.get("median_ms") for one in case}
        size = (f"{users} x {candidates}", str(steps), str(hidden))
        rows.append((*size, *(shown(times.get(name)) for name in names)))
    return Table(("users x candidates", "steps", "hidden", *(f"`{name}`, ms" for name in names)), rows)


def compiled(folder: Path) -> list[Table]:
    """Of `kernels.aot`."""
    names = {
        "kernel": "kernel",
        "target": "target",
        "precision": "precision",
        "num_warps": "warps",
        "instructions_per_step_per_16_candidates": "instructions of a warp a step and 16 candidates",
        "registers": "registers",
        "spills": "spills",
        "local_bytes": "local bytes",
        "shared_bytes": "shared bytes",
    }
    rows = [[_text(one[name]) for name in names] for one in read(folder / "aot.json")]
    return [Table(tuple(names.values()), rows)]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def scorer(folder: Path) -> list[Table]:
    """Of `model.bench`."""
    found = read(folder / "scorer.json")
    header = ("requests x candidates", "behaviours", "least µs", "median µs", "forward, least µs", "times")
    rows = [
        (
            f"{one['requests']} x {one['candidates']}",
            str(one["steps"]),
            *(f"{one['scorer_us'][name]:,.0f}" for name in ("least", "median")),
            f"{one['forward_us']['least']:,.0f}",
            f"{one['forward_us']['least'] / one['scorer_us']['least']:.1f}",
        )
        for one in found["cases"]
    ]
    return [Table(header, rows, f"{found['scorer']}, {found['threads']} thread(s)")]


def reading(folder: Path) -> list[Table]:
    """Of the reading of requests."""
    found = read(folder / "reading.json")
    results = found["results"]
    readers = list(dict.fromkeys(one["reader"] for one in results))
    rows = []
    for candidates, each in groupby(results, lambda one: one["candidates"]):
        times = {one["reader"]: one["microseconds"] for one in each}
        rows.append((str(candidates), *(f"{times[name]:.1f}" for name in readers)))
    return [Table(("candidates", *(f"{name}, µs" for name in readers)), rows)]


def readers(folder: Path) -> list[Table]:
    """Of locust."""
    names = ("Request Count", "Failure Count", "Requests/s", "50%", "95%", "99%", "99.9%")
    with (folder / "report_stats.csv").open(newline="") as file:
        rows = [
            (f"{one['Type']} {one['Name']}".strip(), *(shown(_number(one[name]), 4) for name in names))
            for one in csv.DictReader(file)
        ]
    with (folder / "report_stats_history.csv").open(newline="") as file:
        most = max((_number(one["Requests/s"]) or 0.0 for one in csv.DictReader(file)), default=0.0)
    header = ("", "requests", "failures", "a second", "median ms", "95 %", "99 %", "99.9 %")
    return [Table(header, rows, f"At most {most:.0f} requests a second, in the spike.")]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def openloop(folder: Path) -> list[Table]:
    """Of `loadtest.openloop`: what was found, what else is known of it, and the rates that were tried."""
    found = read(folder / "openloop.json")
    tables = []
    for server in found["servers"]:
        summary = server["summary"]
        kinds = [(kind, *cells(summary[kind])) for kind in ("score", "behaviors", "large", "probe") if kind in summary]
        tables.append(Table(OPEN_LOOP, kinds, "; ".join(found["remarks"])))
        tables.append(Table(("median of repeats (least to greatest)", ""), list(_known(server))))
        points = [point for each in server["sweeps"] for point in each["points"]]
        if points:
            tables.append(_tried(sorted(points, key=lambda point: float(point["rate"]))))
    return tables


def _known(server: dict[str, Any]) -> Iterable[Row]:
    summary = server["summary"]
    score = summary.get("score", {})
    if server["capacities"]:
        yield "capacity of each repeat, requests/s", listed(server["capacities"])
    yield "p99 ms", spread(score.get("p99"))
    for part in ("queue", "store", "compute"):
        if f"{part} mean" in score:
            yield f"{part}, mean ms", spread(score[f"{part} mean"])
    yield "server CPU a request, ms", spread(summary.get("server_cpu_ms"))
    yield "client CPU, part of its cores", spread(summary.get("client_cpu_share"))
    yield "requests sent late by, p99 ms", spread(summary.get("lag_p99_ms"))
    yield "followed another of their user", spread(summary.get("adjacency"))


def _tried(points: list[dict[str, Any]]) -> Table:
    header = ("offered/s", "achieved/s", "p50 ms", "p95", "p99", "p99.9", "queue, mean ms", "compute, mean ms", "")
    rows = []
    for point in points:
        score = point["kinds"].get("score")
        if score:
            times = [shown(score["percentiles"][name]) for name in ("p50", "p95", "p99", "p99.9")]
            parts = [shown(score["parts"].get(part, {}).get("mean")) for part in ("queue", "compute")]
            rate = (shown(score["offered"], 4), shown(score["achieved"], 4))
            rows.append((*rate, *times, *parts, point["broken"] or "kept"))
    return Table(header, rows)
