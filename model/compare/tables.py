"""The comparison as a page of tables, in Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.compare.results import Comparison, Row
from model.compare.statistics import Estimate, estimate, paired

HOW = """\
Every variant of a study has the same recipe, data and seeds; ± is the standard deviation over seeds. A difference is
taken seed by seed, with the 95 % t-interval of their mean; in bold where it excludes zero. Each interval stands for
itself: of twenty that compare equals, one excludes zero. Serving is the scorer's time for a candidate of a request with
200 of them and 50 behaviours (or as many as the model takes in), one thread, all variants in turn: median (least).
Parameters are those served. Training has one thread; its cost is in CPU seconds, or by the clock, beside other
trainings, in results from before these were counted. A net that was distilled is also compared with its own booster."""
SPLITS_TOO = """\
Each seed also splits the users anew. The splits have users in common, so their intervals are somewhat too narrow."""
HEAD = ("AUC", "difference", "GAUC", "log loss", "ECE", "dev AUC", "parameters")


def page(comparisons: Sequence[Comparison], pictures: Mapping[str, Sequence[str]]) -> str:
    """The whole page; `pictures` are files by the data set's label and the study's name, `label/study`."""
    parts = ["# Comparison of models", HOW]
    for one in comparisons:
        parts += list(_section(one, pictures))
    return "\n\n".join(parts) + "\n"


def _section(one: Comparison, pictures: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield f"## {one.label}"
    yield about(one)
    for study in one.studies:
        yield f"### {study['question']}"
        yield table(one.rows(study), int(one.document["seeds"]))
        for file in pictures.get(f"{one.label}/{study['name']}", ()):
            yield f"![{study['question']}]({file})"
    failed = one.document["failed"]
    if failed:
        yield "Failed:\n\n" + "\n".join(f"- {name}: {reason}" for name, reason in failed.items())


def about(one: Comparison) -> str:
    """What was learnt from, and how."""
    document = one.document
    data, machine, software = document["data"], document["machine"], document["versions"]
    rows = ", ".join(f"{data[split]:,} {split}" for split in ("train", "dev", "test"))
    drawn = ", as many drawn negatives on top of train" if data["negatives_drawn"] else ""
    parts = [f"{data['description']}. Impressions: {rows}{drawn}; {data['items']:,} items. Judged on {one.split}."]
    if data["negatives_drawn"]:
        parts.append(SPLITS_TOO)
    parts.append(f"```\n{shlex.join(document['command'])}\n```")
    recipe = f"`{' '.join(document['recipe'])}`" if document["recipe"] else "the defaults"
    commits = ", ".join(str(commit)[:12] for commit in document["commits"]) or "unknown"
    parts.append(
        f"Seeds: {document['seeds']}. Recipe: {recipe}. {machine['cpu']}, "
        f"{machine['cores']} cores, kernels {machine['native_isa'] or 'in torch'}; torch {software['torch']}; "
        f"commit {commits}; {document['workers']} trainings at once, one thread each."
    )
    return "\n\n".join(parts)


def table(rows: Sequence[Row], seeds: int) -> str:
    """A study's table."""
    by_name = {row.name: row for row in rows}
    several = len({row.reference for row in rows}) > 1
    counted = all(row.cpu_seconds is not None for row in rows)
    head = [*HEAD, "training CPU s" if counted else "training s", "serving µs"]
    distilled = any(row.of_boosters() for row in rows)
    if distilled:
        head += ["booster AUC", "above its booster"]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for row in rows:
        fewer = "" if len(row.cells) == seeds else f" ({len(row.cells)} of {seeds} seeds)"
        cells = [row.name + fewer, *_cells(row, by_name.get(row.reference), several, counted)]
        if distilled:
            boosters = row.of_boosters()
            alone = estimate(list(boosters.values())) if boosters else None
            cells += [spread(alone), _gap(paired(row.by_seed("auc"), boosters))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: Row, reference: Row | None, several: bool, counted: bool) -> list[str]:
    micros = row.micros
    return [
        spread(row.of("auc")),
        "reference" if row.name == row.reference else difference(row, reference, several),
        *(spread(row.of(metric)) for metric in ("gauc", "log_loss", "calibration_error")),
        spread(row.of("auc", "dev")),
        f"{row.variant['parameters']:,}",
        f"{row.cpu_seconds if counted else row.seconds:.0f}",
        "-" if micros is None else f"{micros['median']:.2f} ({micros['least']:.2f})",
    ]


def spread(found: Estimate | None) -> str:
    """Mean and standard deviation: `.7454 ± .0010`."""
    if found is None:
        return "-"
    return short(found.mean) + (f" ± {short(found.deviation)}" if found.seeds > 1 else "")


def difference(row: Row, reference: Row | None, several: bool) -> str:
    """A row against its reference, with the interval: `+.0012 (-.0003 to +.0027)`."""
    found = row.above(reference) if reference else None
    return _gap(found) + (f" to {reference.name}" if several and reference and found else "")


def _gap(found: Estimate | None) -> str:
    """A difference with its interval, in bold where that excludes zero."""
    if found is None:
        return "-"
    text = short(found.mean, "+")
    if found.seeds > 1:
        text += f" ({short(found.low, '+')} to {short(found.high, '+')})"
    return f"**{text}**" if found.told_from_zero else text


def short(value: float, sign: str = "", places: int = 4) -> str:
    """A number without the zero before the point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{places}f}")


def said(one: Comparison) -> Iterator[str]:
    """The comparison in a few lines for a terminal."""
    for study in one.studies:
        yield f"{study['question']} ({one.split} AUC)"
        rows = one.rows(study)
        by_name: dict[str, Any] = {row.name: row for row in rows}
        for row in rows:
            against = difference(row, by_name.get(row.reference), False).replace("*", "")
            yield f"  {row.name:<38} {spread(row.of('auc')):<18}{against if row.name != row.reference else ''}".rstrip()
