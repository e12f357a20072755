"""Tables of the comparisons: Augur beside a plain server, the rungs between the two, models beside one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtest.openloop.table import spread
from loadtest.report.tables import Row, Table, listed, read, shown
from loadtest.zoo import HEADER, rows


def capacity(folder: Path) -> list[Table]:
    """Of `loadtest.capacity`, whole or `--costs`."""
    found = read(folder / "capacity.json")
    return [table for table in _capacity(found) if table.rows]


def _capacity(found: dict[str, Any]) -> Iterator[Table]:
    bound = f"requests/s of {found['candidates']} candidates, p99 within {found['bound_p99_ms']:g} ms"
    rows = [
        (name, *(listed(one[who]) for who in ("augur", "baseline")), *map(spread, _ratios(one)))
        for name, one in found["capacity"].items()
    ]
    header = ("histories", "Augur", "plain server", "ratio: median (least to greatest)", "CPU a request, ratio")
    yield Table(header, rows, f"Capacity of each round, {bound}.")
    for server, each in found.get("below_capacity", {}).items():
        yield _below(server, each)
    yield _adjacency(found.get("adjacency", []))
    yield Table(
        ("ms of CPU a request, each round", "in all", "model", "outside", "echo", "outside by echo"),
        [_cost(one) for one in found.get("costs", ())],
        "On connections that are never without a request; the echo sends the same body back.",
    )
    yield Table(("at a low rate, ms of CPU a request, each round", ""), list(_alone(found)))
    if "soak" in found:
        yield _soak(found["soak"])


def _ratios(one: dict[str, Any]) -> list[dict[str, float] | None]:
    return [one["augur_by_baseline"], one["cpu_baseline_by_augur"]]


def _below(server: str, each: dict[str, Any]) -> Table:
    rows = [
        ("alone", *(spread(each["alone"]["score"][name]) for name in ("p50", "p99")), ""),
        (
            "beside one large request a second",
            *(spread(each["beside_large"]["score"][name]) for name in ("p50", "p99")),
            "",
        ),
        ("the large ones", *_tail(each["large_p99_ms"])),
        ("`GET /livez` beside the load", *_tail(each["stall_p99_ms"])),
        ("`GET /livez`, idle", *_tail(each["stall_idle_p99_ms"])),
    ]
    return Table((f"{server}, {each['rate']:.1f} requests/s (70 % of capacity)", "p50 ms", "p99 ms", "largest"), rows)


def _tail(one: dict[str, float | None]) -> list[str]:
    return [shown(one[name]) for name in ("p50", "p99", "largest")]


def _adjacency(found: list[dict[str, Any]]) -> Table:
    rows = [
        (
            f"{one['candidates']} candidates, {one['rate']:.0f} requests/s, within {one['companion_ms']:g} ms: "
            f"{one['adjacency']:.0%}",
            listed(1 - share for share in one["companions"]),
            listed(one["passes"]),
            spread(one["same"]["score"]["p99"]),
            spread(one["different"]["score"]["p99"]),
            spread(one["cpu_same_by_different"]),
        )
        for one in found
    ]
    header = (
        "same-user adjacency",
        "user passes a request, at best",
        "counted",
        "p99 ms",
        "of different users",
        "CPU, ratio",
    )
    return Table(header, rows)


def _cost(one: dict[str, Any]) -> Row:
    what = f"{one['candidates']} candidates, {one['connections']} connections"
    times = [listed(one[name]) for name in ("cpu_ms", "model_ms", "outside_ms", "echo_cpu_ms")]
    return what, *times, spread(one["outside_by_echo"])


def _alone(found: dict[str, Any]) -> Iterator[Row]:
    alone, one = found["outside_the_model"], found["one_candidate"]
    yield f"{found['candidates']} candidates, 20 a second", listed(alone["server_cpu_ms"])
    yield "of it outside the model", listed(alone["outside_ms"])
    yield "1 candidate, 200 a second", listed(one["augur_cpu_ms"])
    yield "an echo of the same body", listed(one["echo_cpu_ms"])
    yield "1 candidate by echo: median (least to greatest)", spread(one["augur_by_echo"])


def _soak(soak: dict[str, Any]) -> Table:
    errors = ", ".join(f"{count} {name}" for name, count in soak["errors"].items()) or "0"
    score = soak["summary"]["score"]
    rows = [
        ("errors", errors),
        ("p50, p99 ms", ", ".join(shown((score[name] or {}).get("median")) for name in ("p50", "p99"))),
        ("resident MiB, from a fifth of the run to its end", listed([soak["mib_first"], soak["mib_last"]])),
        ("MiB an hour, by a line through it", shown(soak["mib_per_hour"])),
    ]
    return Table((f"soak of {soak['seconds']:g} s at 70 % of capacity", ""), rows)


def ladder(folder: Path) -> list[Table]:
    """Of `loadtest.ladder`."""
    found = read(folder / "ladder.json")
    low = f"at {found['low_rate']:g}/s"
    header = ("rung", "", "capacity/s", f"p50 ms {low}", "p99", "CPU ms", "p50 ms at 70 % of capacity", "p99")
    rows, ratios = [], []
    for rung in found["rungs"]:
        slow, below = rung["low"].get("score", {}), rung["below"].get("score", {})
        times = [_median(slow.get(name)) for name in ("p50", "p99")]
        under = [_median(below.get(name)) for name in ("p50", "p99")]
        cost = _median(rung["low"].get("server_cpu_ms"))
        rows.append((f"`{rung['name']}`", rung["what"], listed(rung["capacity"]), *times, cost, *under))
        names = ("capacity", "p50", "server_cpu_ms")
        ratios.append((f"`{rung['name']}`", *(spread(rung["by_first"][name]) for name in names)))
    bound = (
        f"{found['candidates']} candidates, histories of {found['history']}, p99 within {found['bound_p99_ms']:g} ms"
    )
    by_first = ("by the first rung", "capacity, times", f"p50 {low}, by", f"CPU {low}, by")
    return [Table(header, rows, bound), Table(by_first, ratios[1:], "Round by round: median (least to greatest).")]


def zoo(folder: Path) -> list[Table]:
    """Of `loadtest.zoo`."""
    found = read(folder / "zoo.json")
    asked = f"{found['candidates']} candidates, histories of {found['history']}, {found['rate']:g} requests/s"
    return [Table(HEADER, rows(found), f"{asked}; ratios round by round: median (least to greatest).")]


def _median(value: dict[str, float] | None) -> str:
    return "" if value is None else shown(value["median"])
