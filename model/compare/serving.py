"""What serving costs: the scorer of every variant, checked against its network, then timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from model.artifact import load_artifact
from model.bench import Case, check, padded, random_requests
from model.scorer import ScoreInput, Scorer

CANDIDATES, BEHAVIORS = 200, 50
ROUNDS, CALLS = 30, 5  # rounds in which all take their turn, and timed calls of a turn, after one that warms up


class Contender(NamedTuple):
    """A variant's scorer and what it is asked."""

    scorer: Scorer
    requests: list[ScoreInput]
    micros: list[float]  # of each call


def measure_serving(artifacts: Mapping[str, Path], *, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, str]]:
    """Microseconds a candidate of each artifact's scorer on one thread, by name; and why others were left out.

    A request has 200 candidates and 50 behaviours, or as many as the model takes in.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        contenders, wrong = _checked(artifacts)
        for _ in range(rounds):
            for one in contenders.values():
                one.scorer.score(one.requests)
                for _ in range(CALLS):
                    began = time.perf_counter()
                    one.scorer.score(one.requests)
                    one.micros.append((time.perf_counter() - began) * 1e6)
    finally:
        torch.set_num_threads(threads)
    return {name: _found(one) for name, one in contenders.items()}, wrong


def _checked(artifacts: Mapping[str, Path]) -> tuple[dict[str, Contender], dict[str, str]]:
    contenders, wrong = {}, {}
    for name, folder in artifacts.items():
        artifact = load_artifact(folder)
        scorer = Scorer(artifact, device="cpu", threads=1)
        requests = random_requests(artifact, Case(1, CANDIDATES, min(BEHAVIORS, scorer.max_history)))
        try:
            check(scorer, artifact.model(), requests, padded(artifact, requests))
        except ArithmeticError as error:
            wrong[name] = str(error)
            continue
        contenders[name] = Contender(scorer, requests, [])
    return contenders, wrong


def _found(one: Contender) -> dict[str, Any]:
    each = [micros / CANDIDATES for micros in one.micros]
    return {
        "scorer": one.scorer.description,
        "candidates": CANDIDATES,
        "behaviors": len(one.requests[0].history),
        "calls": len(each),
        "us_per_candidate": {"median": round(statistics.median(each), 4), "least": round(min(each), 4)},
    }
