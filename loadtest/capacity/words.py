"""The comparison in words: a table for people and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from loadtest.capacity.parts import Case
from loadtest.openloop import pages, pictures, table
from loadtest.openloop.run import pooled
from loadtest.openloop.table import Measured, spread
from loadtest.openloop.target import Target

HOW = (
    "Both servers have the same model, requests, cores and bound, and are measured in turn, round after round. "
    "Capacity is the greatest offered rate, of Poisson arrivals, whose p99 from when a request was due keeps the bound "
    "without one error or 429. Client and server share the machine; ratios hold, milliseconds are this machine's."
)


def text(found: dict[str, Any]) -> str:
    """The table for people."""
    return "\n".join(_lines(found))


def where(found: dict[str, Any]) -> Iterator[str]:
    """The machine, and who had which of its cores."""
    about, cores = found["machine"], found["cores"]
    yield from table.where(about)
    shared = f"servers on cores {cores['servers'] or 'any'}, client on {cores['client'] or 'any'}"
    yield f"client and servers share the machine; {shared}"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    model = found["model"]
    yield from where(found)
    yield f"model {model['name']}, digest {model['version']}: {model['description']}"
    yield ""
    if found["capacity"]:
        yield f"capacity, requests/s, {found['candidates']} candidates, p99 within {found['bound_p99_ms']:g} ms:"
    for name, case in found["capacity"].items():
        rates = ["/".join(f"{rate:.1f}" for rate in case[server]) for server in ("augur", "baseline")]
        yield f"  {name:<26} Augur {rates[0]:<18} baseline {rates[1]:<16} ratio {spread(case['augur_by_baseline'])}"
        yield f"  {'':<26} server CPU a request, baseline by Augur: {spread(case['cpu_baseline_by_augur'])}"
    for server, each in found.get("below_capacity", {}).items():
        yield from _below(server, each)
    yield ""
    for each in found.get("costs", ()):
        yield from _cost(each)
    yield from _costs(found["outside_the_model"], found["one_candidate"])
    for each in found.get("adjacency", ()):
        same, different = spread(each["same"]["score"]["p99"]), spread(each["different"]["score"]["p99"])
        what = f"{each['candidates']} candidates, {each['rate']:.0f} requests/s, within {each['companion_ms']:g} ms"
        yield f"same-user adjacency {each['adjacency']:.0%} ({what}): p99 {same} ms, of different users' {different} ms"
        yield f"  user passes a request {_values(each['passes'])}, of whom {_values(each['companions'])} follow another"
        yield f"  server CPU, same user by different: {spread(each['cpu_same_by_different'])}"
    if "soak" in found:
        soak = found["soak"]
        grown = f"memory {_values([soak['mib_first'], soak['mib_last']])} MiB ({_values([soak['mib_per_hour']])} MiB/h)"
        yield f"soak of {soak['seconds']:g} s: errors {soak['errors'] or 0}, {grown}"


def _cost(each: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{each['candidates']} candidates, {each['connections']} connections never idle: "
        f"{_values(each['cpu_ms'])} ms of CPU, {_values(each['model_ms'])} in the model, "
        f"outside {_values(each['outside_ms'])}; an echo of the same body {_values(each['echo_cpu_ms'])}, "
        f"ratio {spread(each['outside_by_echo'])}"
    )


def _costs(outside: dict[str, Any], one: dict[str, Any]) -> Iterator[str]:
    said = "unknown (no Server-Timing)" if None in outside["outside_ms"] else f"{_values(outside['outside_ms'])} ms"
    yield f"server CPU a request, one at a time: {_values(outside['server_cpu_ms'])} ms; outside the model: {said}"
    costs = f"{_values(one['augur_cpu_ms'])} ms of CPU, an echo of the same body {_values(one['echo_cpu_ms'])}"
    yield f"one candidate: {costs}; ratio {spread(one['augur_by_echo'])}"


def _below(server: str, each: dict[str, Any]) -> Iterator[str]:
    alone, beside = each["alone"]["score"], each["beside_large"]["score"]
    times = f"p50 {spread(alone['p50'])} ms, p99 {spread(alone['p99'])} ms"
    yield ""
    yield f"{server} at 70 % of capacity, {each['rate']:.1f}/s: {times}"
    yield f"  beside one large request a second: p99 {spread(beside['p99'])} ms; these {_tail(each['large_p99_ms'])}"
    yield f"  event loop (GET /livez): {_tail(each['stall_p99_ms'])}; idle: {_tail(each['stall_idle_p99_ms'])}"


def _tail(one: dict[str, float | None]) -> str:
    shown = [f"{value:.2f}" if (value := one[name]) is not None else "-" for name in ("p50", "p99", "largest")]
    return f"p50 {shown[0]}, p99 {shown[1]}, largest {shown[2]} ms"


def _values(values: Sequence[float | None]) -> str:
    return "/".join("-" if value is None else f"{value:.3g}" for value in values)


def page(found: dict[str, Any], cases: Sequence[Case]) -> str:
    """The page."""
    body = [pages.paragraph(HOW), pages.preformatted(text(found))]
    for case in cases:
        measured = [
            Measured(Target("", name=name), {}, sweeps=sweeps)
            for name, sweeps in zip(("Augur", "baseline"), case.sweeps, strict=True)
        ]
        body.append(pages.heading(f"{found['candidates']} candidates, {case.name}"))
        drawn = pictures.latency_against_rate(measured, found["bound_p99_ms"])
        body.append(pages.image("latency against offered rate", drawn))
        body.append(pages.image("work against offered rate", pictures.work_against_rate(measured)))
        curves = [(f"{one.target.name} at capacity", pooled(one.counted)) for one in measured if one.counted]
        body.append(pages.image("latency by percentile", pictures.percentile_curves(curves)))
        parts = pictures.parts_of_time([(one.target.name, one.counted) for one in measured])
        body += [pages.image("parts of the server's time", parts)] if parts else []
    if "soak" in found:
        memory = np.array(found["soak"]["memory"])
        body.append(pages.image("memory", pictures.over_time("Memory of a soak", "MiB", memory.tolist())))
    return pages.whole("Augur against a plain server", body)
