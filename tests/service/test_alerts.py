"""The alerts for Prometheus, by its own promtool: each fires on what it is for, and on nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from service_parts import Service, metric_names

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yaml"
NAME = re.compile(r"\b(?:augur|process|python)_\w+")
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
}
SERVER = 'job="augur", instance="a"'

Series = dict[str, str]  # what is scraped, one value in 15 s, as promtool writes it


class Case(NamedTuple):
    """What makes an alert fire, what just does not, and what it then says of whom."""

    fires: Series
    quiet: Series
    labels: str = SERVER
    minutes: int = 15


def requests(code: int, bad: int, good: int) -> Series:
    """So many answers between two scrapes."""
    return {
        f'augur_requests_total{{{SERVER}, route="/v1/score", code="200"}}': f"0+{good}x80",
        f'augur_requests_total{{{SERVER}, route="/v1/score", code="{code}"}}': f"0+{bad}x80",
    }


def latencies(slow: int) -> Series:
    """Of a thousand answers so many took from 100 to 150 ms."""
    name = f'augur_request_seconds_bucket{{{SERVER}, route="/v1/score"'
    within = {"0.1": 1000 - slow, "0.15": 1000, "+Inf": 1000}
    return {f'{name}, le="{le}"}}': f"0+{count}x80" for le, count in within.items()}


def one(name: str, values: str, labels: str = "") -> Series:
    return {f"{name}{{{SERVER}{labels}}}": values}


JOB = 'job="augur"'
STALE = ', reason="store_stale"'
READY = one("augur_ready", "1x80")
CASES = {
    "AugurNoServerReady": Case(one("augur_ready", "1x10 0x80"), one("augur_ready", "0x50 1x40"), ""),
    "AugurServerNotReady": Case(one("augur_ready", "1x20 0x80"), one("augur_ready", "1x45 0x80")),
    "AugurRestarts": Case(
        one("process_start_time_seconds", "1x10 2x10 3x10 4x80") | one("augur_build_info", "1x80"),
        one("process_start_time_seconds", "1x10 2x10 3x80") | one("augur_build_info", "1x80"),
    ),
    "AugurErrors": Case(requests(503, 2, 998), requests(429, 20, 980), JOB),
    "AugurRefuses": Case(requests(429, 2, 998), requests(503, 20, 980), JOB),
    "AugurQueueFills": Case(
        one("augur_queue_candidates", "5000x80") | one("augur_queue_limit_candidates", "16384x80"),
        one("augur_queue_candidates", "4000x80") | one("augur_queue_limit_candidates", "16384x80"),
    ),
    "AugurSlow": Case(latencies(11), latencies(9), JOB),
    "AugurLaneStuck": Case(one("augur_lane_longest_seconds", "0x50 6x20"), one("augur_lane_longest_seconds", "4x80")),
    "AugurDegraded": Case(
        one("augur_degraded_total", "0+2x80", ', reason="store_stale"')
        | one("augur_scored_requests_total", "0+100x80"),
        one("augur_degraded_total", "0+1x80", ', reason="store_stale"')
        | one("augur_scored_requests_total", "0+100x80"),
        JOB,
    ),
    "AugurStoreBreakerOpen": Case(
        one("augur_store_breaker", "1x40 0x40", ', state="closed"'),
        one("augur_store_breaker", "1x40 0x4 1x40", ', state="closed"'),
        f'{SERVER}, state="closed"',
    ),
    "AugurWritesFail": Case(
        one("augur_store_events_total", "0+1x80", ', event="write_errors"'),
        one("augur_store_events_total", "0+1x80", ', event="stale"'),
        JOB,
    ),
    "AugurEventLoopStalls": Case(
        one("augur_loop_lag_longest_seconds", "0.06x80"), one("augur_loop_lag_longest_seconds", "0.01x30 0.9 0.01x50")
    ),
    "AugurConnectionsRefused": Case(
        one("augur_connections_closed_total", "0+1x80", ', reason="limit"'),
        one("augur_connections_closed_total", "0+1x80", ', reason="idle"'),
        f'{SERVER}, reason="limit"',
    ),
    "AugurVersionsDiffer": Case(
        one("augur_model_info", "1x400", ', model="m", version="1"')
        | {'augur_model_info{job="augur", instance="b", model="m", version="2"}': "1x400"},
        one("augur_model_info", "1x400", ', model="m", version="1"')
        | {'augur_model_info{job="augur", instance="b", model="other", version="2"}': "1x400"},
        'job="augur", model="m"',
        90,
    ),
    "AugurLogLinesLost": Case(
        one("augur_log_lines_lost_total", "0x50 3x40"), one("augur_log_lines_lost_total", "3x80")
    ),
}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI"):
        pytest.fail("promtool is missing")
    return found or pytest.skip("needs promtool (Debian: prometheus)")


def scenario(name: str, series: Series, fires: bool) -> dict[str, Any]:
    rule, case = RULES[name], CASES[name]
    labels = rule["labels"] | dict(re.findall(r'(\w+)="(\w+)"', case.labels))
    expected = [{"exp_labels": labels, "exp_annotations": rule["annotations"]}] if fires else []
    others = READY if "augur_ready" not in rule["expr"] else {}
    return {
        "interval": "15s",
        "name": f"{name} {'fires' if fires else 'is quiet'}",
        "input_series": [{"series": each, "values": values} for each, values in (series | others).items()],
        "alert_rule_test": [{"eval_time": f"{case.minutes}m", "alertname": name, "exp_alerts": expected}],
    }


def run(promtool: str, tests: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": tests}))
    return subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)


def test_prometheus_takes_them(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_each_fires_on_what_it_is_for_and_on_nothing_else(promtool: str, tmp_path: Path) -> None:
    assert CASES.keys() == RULES.keys()
    tests = [scenario(name, case.fires, True) for name, case in CASES.items()]
    tests += [scenario(name, case.quiet, False) for name, case in CASES.items()]
    done = run(promtool, tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_does_not_fire_is_noticed(promtool: str, tmp_path: Path) -> None:
    done = run(promtool, [scenario("AugurSlow", CASES["AugurSlow"].quiet, True)], tmp_path)
    assert done.returncode != 0
    assert "AugurSlow" in done.stdout + done.stderr


def test_they_ask_for_metrics_that_exist(with_service: Any) -> None:
    names = {name for rule in RULES.values() for name in NAME.findall(rule["expr"])}
    assert len(names) > 12

    async def asked(service: Service) -> None:
        there = await metric_names(service)
        assert names <= there, names - there

    with_service(asked)


def test_each_has_a_row_in_the_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = set(re.findall(r"^\| `(Augur\w+)` \|", page, re.MULTILINE))
    assert rows == RULES.keys()
    assert all(rule["labels"]["severity"] in {"page", "ticket"} for rule in RULES.values())
