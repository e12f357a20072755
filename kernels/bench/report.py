"""Tables for people, and the line for programs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kernels.bench import gpu, ours
from kernels.bench.case import Size
from kernels.bench.rounds import Result, Task, times_faster
from kernels.bench.series import AXES, Choice, axis_values
from kernels.bench.targets import Judged

Point = tuple[float, float]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    properties = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "torch": torch.__version__,
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "native_isa": ours.isa_in_use(),
        "gpu": None if properties is None else properties.name,
    }


def _processor() -> str:
    """Its name, where the system tells one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


LEGEND = """error: largest, against float64. faster: times than the first of the table, median of the rounds' ratios.
of peak, CPU: recurrent product alone (head: its products), of the float32 FMA peak measured in the same rounds on as
many threads;
GPU: the roofline's least time, by arithmetic from the device's own figures, of the time measured."""


def table(task: Task, results: Sequence[Result]) -> str:
    """One case: all contenders, those that ran first."""
    ran = [result for result in results if result.reason is None]
    lines = [f"{task.operation}, {task.device.upper()}: {task.size}"]
    if ran:
        width = max(len(result.name) for result in ran)
        lines.append(f"{'contender':<{width}}{'error':>9}{'median ms':>11}{'least ms':>10}{'faster':>8}{'of peak':>9}")
        lines += [_row(result, ran[0], width) for result in ran]
    for reason in dict.fromkeys(result.reason for result in results if result.reason is not None):
        lines.append(f"not run: {', '.join(each.name for each in results if each.reason == reason)} ({reason})")
    return "\n".join(lines)


def _row(result: Result, base: Result, width: int) -> str:
    error = "wrong" if result.largest_error is None else f"{result.largest_error:.1e}"
    line = f"{result.name:<{width}}{error:>9}"
    if result.times:
        share = _share(result)
        peak = "" if share is None else f"{share:.0%}"
        line += f"{statistics.median(result.times):>11.3f}{min(result.times):>10.3f}"
        line += f"{times_faster(result, base)[0]:>8.2f}{peak:>9}"
    return f"{line}  {result.contender.meaning}"


def _share(result: Result) -> float | None:
    if result.task.device == "cpu":
        shares = result.shares()
        return None if shares is None else shares[0]
    floor = _roofline_ms(result)
    return None if floor is None else floor / statistics.median(result.times)


def _roofline_ms(result: Result) -> float | None:
    precision = result.contender.precision
    if result.task.device == "cpu" or result.task.operation == "gru" or precision is None:
        return None
    properties = torch.cuda.get_device_properties(0)
    return gpu.roofline(result.task.size, precision, properties, gpu.architecture(properties)).floor_ms


def judged_lines(judged: Iterable[Judged]) -> str:
    """Target, measured, met or not."""
    lines = ["target  measured  (best)"]
    for one in judged:
        if one.measured is None:
            lines.append(f"{one.target:>6.4g}{'-':>10}{'':>8}  not measured: {one.what}; {one.reason}")
        else:
            met = "met" if one.met else "NOT met"
            best = f"({one.best:.2f})"
            lines.append(f"{one.target:>6.4g}{one.measured:>10.2f}{best:>8}  {met}: {one.what}")
    return "\n".join(lines)


def growth(results: Iterable[Result], axis: str, base: Size, device: str = "cpu") -> dict[str, list[Point]]:
    """Median ms of each contender by the values of an axis, where at least two of them were timed."""
    wanted = {base._replace(**{axis: value}): value for value in axis_values(axis, base)}
    points: dict[str, list[Point]] = {}
    for result in results:
        task = result.task
        if result.times and task.size in wanted and (task.operation, task.device) == ("evolve", device):
            points.setdefault(result.name, []).append((wanted[task.size], statistics.median(result.times)))
    return {name: sorted(each) for name, each in points.items() if len(each) > 1}


def threads_growth(results: Iterable[Result], base: Size) -> dict[str, list[Point]]:
    """Median ms of ours by the number of threads."""
    points: dict[str, list[Point]] = {}
    for result in results:
        contender, task = result.contender, result.task
        at_base = (task.size, task.operation, task.device) == (base, "evolve", "cpu")
        if result.times and at_base and contender.threads and contender.isa and contender.precision:
            single = ours.name(contender.precision, contender.isa)
            points.setdefault(single, []).append((contender.threads, statistics.median(result.times)))
    return {name: sorted(each) for name, each in points.items() if len(each) > 1}


def growth_tables(results: Sequence[Result], base: Size) -> str:
    """How time grows, one table for each axis that has been gone along."""
    parts = []
    for device in sorted({result.task.device for result in results}):
        for axis in AXES:
            parts.append(_growth_table(f"{axis}, {device.upper()}", growth(results, axis, base, device)))
    parts.append(_growth_table("threads, CPU", threads_growth(results, base)))
    return "\n\n".join(part for part in parts if part)


def _growth_table(axis: str, points: Mapping[str, Sequence[Point]]) -> str:
    if not points:
        return ""
    values = sorted({value for each in points.values() for value, _ in each})
    lines = [f"{f'ms by {axis}':<24}" + "".join(f"{value:>10g}" for value in values)]
    for name, each in points.items():
        times = dict(each)
        lines.append(f"{name:<24}" + "".join(f"{times[v]:>10.3f}" if v in times else f"{'-':>10}" for v in values))
    return "\n".join(lines)


def as_json(choice: Choice, results: Sequence[Result], judged: Iterable[Judged]) -> dict[str, Any]:
    """All that was found: machine, results of every case and contender, judged ratios."""
    return {
        "machine": machine() | {"torch_threads": choice.threads},
        "results": [_result(result, results) for result in results],
        "targets": [asdict(one) | {"met": one.met} for one in judged],
    }


def _result(result: Result, results: Sequence[Result]) -> dict[str, Any]:
    contender, task = result.contender, result.task
    found: dict[str, Any] = {"operation": task.operation, "device": task.device} | task.size._asdict()
    found |= {"contender": result.name, "meaning": contender.meaning, "threads": contender.threads}
    found |= {"isa": contender.isa, "precision": contender.precision}
    if result.reason is not None:
        return found | {"not_run": result.reason}
    found |= {"correct": result.correct, "largest_error": result.largest_error, "tolerance": contender.tolerance}
    if not result.times:
        return found
    base = next(one for one in results if one.task is task and one.times)
    faster = times_faster(result, base)
    found |= {"median_ms": statistics.median(result.times), "least_ms": min(result.times)}
    found |= {"rounds": len(result.times), "calls_in_a_round": result.calls}
    found |= {"times_faster": faster[0], "times_faster_by_least": faster[1], "than": base.name}
    found |= {"multiply_adds_per_second": result.rate}
    shares, floor = result.shares(), _roofline_ms(result)
    if shares is not None:
        found |= {"share_of_peak": shares[0], "share_of_peak_by_best": shares[1]}
        found |= {"peak_multiply_adds_per_second": statistics.median(result.peaks)}
    return found if floor is None else found | {"roofline_ms": floor, "share_of_roofline": _share(result)}
