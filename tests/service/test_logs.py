from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from process_parts import running
from service_parts import SETTINGS, VALID, Service, TwinScorer, post, score

from service import logs
from service.logs import JsonFormatter, TextFormatter, Writer
from service.settings import Settings
from service.visit import VISIT, Visit

SECRET_USER, BODY_MARK = "user-that-is-nobody-elses", 987654321


def record(message: str = "it is %s", *arguments: Any, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("augur.test", logging.WARNING, __file__, 1, message, arguments or ("so",), None)
    made.__dict__.update(more)
    return made


def test_a_json_line_is_one_object_with_its_request() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failed = record("é\n%s", "x", exc_info=sys.exc_info(), fields={"status": 500, "level": "no"})
    token = VISIT.set(Visit("abc-1"))
    line = JsonFormatter().format(failed)
    VISIT.reset(token)
    assert "\n" not in line
    read = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.pop("time"))
    assert "ValueError: two" in read.pop("exception")
    assert read == {
        "level": "warning",
        "logger": "augur.test",
        "message": "é\nx",
        "request_id": "abc-1",
        "status": 500,
    }
    assert "request_id" not in json.loads(JsonFormatter().format(record()))


def test_a_text_line_ends_with_its_request() -> None:
    assert TextFormatter().format(record()).endswith(" WARNING augur.test: it is so")
    assert TextFormatter().format(record(request_id="r-1")).endswith(" WARNING augur.test: it is so [r-1]")


def test_lines_that_nobody_reads_are_counted_and_hold_nobody_up() -> None:
    reading, writing = os.pipe()
    writer = Writer(writing)
    writer.setFormatter(TextFormatter())
    before = logs.lost()
    begun = time.monotonic()
    for _ in range(logs.WAITING_LINES + 3000):
        writer.emit(record("x" * 200 + "%s", "y"))
    assert time.monotonic() - begun < 20
    assert logs.lost() > before
    os.close(reading)  # and now they break
    writer.close()
    os.close(writing)


def test_a_line_that_cannot_be_formatted_is_lost() -> None:
    writer = Writer(2)
    before = logs.lost()
    writer.emit(record("%d", "no number"))
    assert logs.lost() == before + 1
    writer.close()


def test_the_form_and_the_level_come_from_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        level = root.level
        logs.configure(Settings(log_format="json", log_level="error"))
        handler = root.handlers[0]
        try:
            logging.getLogger("augur.test").error("said")
            logging.getLogger("augur.test").warning("not said")
        finally:
            root.setLevel(level)
            handler.close()
        logs.configure(Settings())
        assert root.handlers == [handler]
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["message"] == "said"


def test_access_and_slow_lines_name_the_route_and_the_request(
    with_service: Any, twin: TwinScorer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        await post(service, "/v1/score", VALID | {"user_id": SECRET_USER}, headers={"x-request-id": "quick"})
        await service.client.get(f"/v1/users/{SECRET_USER}/behaviors", headers={"x-request-id": "read"})
        twin.free.clear()
        slow = asyncio.ensure_future(post(service, "/v1/score", VALID, headers={"x-request-id": "slow"}))
        await asyncio.sleep(0.4)
        twin.free.set()
        await slow

    with caplog.at_level(logging.INFO):
        with_service(scenario, scorer=twin, settings=replace(SETTINGS, access_log=1, slow_ms=300))
    access = [each for each in caplog.records if each.name == "augur.access"]
    fields = [{**each.__dict__["fields"], "ms": 0} for each in access]
    assert fields == [
        {"method": "POST", "route": "/v1/score", "status": 200, "ms": 0},
        {"method": "GET", "route": "/v1/users/{user_id}/behaviors", "status": 200, "ms": 0},
        {"method": "POST", "route": "/v1/score", "status": 200, "ms": 0},
    ]
    (slow,) = [each for each in caplog.records if each.name == "augur.slow"]
    assert re.search(r"slow: POST /v1/score 200 in \d+\.\d{3} ms; queue_ms .*compute_ms \d{3}", slow.getMessage())
    assert slow.__dict__["fields"]["candidates"] == 1
    ours = [each.getMessage() for each in caplog.records if each.name.startswith("augur")]
    assert SECRET_USER not in str(ours)


def test_a_slow_request_that_scored_nothing_says_so(with_service: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(service: Service) -> None:
        await service.client.get("/v1/models")

    with_service(scenario, settings=replace(SETTINGS, slow_ms=1e-6))
    assert "nothing scored" in caplog.text


def test_a_fault_in_a_lane_is_logged_with_its_request(
    with_service: Any, twin: TwinScorer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        twin.poison = {13: RuntimeError("bad")}
        await post(service, "/v1/score", VALID | {"item_ids": [13]}, headers={"x-request-id": "lane-1"})
        await score(service, item_ids=[5])

    with_service(scenario, scorer=twin)
    assert "lane-1" in {logs.request_of(each) for each in caplog.records if each.name == "augur.lanes"}


def test_no_line_has_a_user_or_a_body(artifact_folder: Path) -> None:
    """Everything is asked for once, well and badly, with all lines on."""
    settings = {"access_log": "1", "slow_ms": "0.001", "log_format": "json", "log_level": "info"}
    with running(model=str(artifact_folder), **settings) as process:
        with httpx.Client(base_url=process.url) as client:
            for asked in (
                {"user_id": SECRET_USER, "item_ids": [BODY_MARK]},
                {"user_id": SECRET_USER, "item_ids": "x", "more": BODY_MARK},
                {"user_id": SECRET_USER, "item_ids": [1], "history": [BODY_MARK], "model": "nope"},
                {"events": [{"user_id": SECRET_USER, "item_id": BODY_MARK, "timestamp_ms": 1}]},
            ):
                for path in ("/v1/score", "/v1/behaviors"):
                    client.post(path, json=asked, headers={"x-request-id": "seen-1", "authorization": "Bearer kkk"})
            for method in ("GET", "DELETE", "PUT"):
                client.request(method, f"/v1/users/{SECRET_USER}/behaviors?limit=x&{BODY_MARK}")
            client.get(f"/{SECRET_USER}")
        process.popen.terminate()
        code, output = process.end()
    assert code == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert sum(line.get("request_id") == "seen-1" for line in lines) == 16  # 8 requests, each slow and noted
    assert {line["logger"] for line in lines} >= {"augur.access", "augur.slow", "augur"}
    for secret in (SECRET_USER, str(BODY_MARK), "kkk"):
        assert secret not in output
    (started,) = (json.loads(line) for line in process.lines)
    assert started["message"] == "serving"
    assert started["models"][0]["name"] == "tiny"


def test_a_full_disk_costs_lines_and_no_request(artifact_folder: Path) -> None:
    with (
        open("/dev/full", "w") as full,
        running(full, model=str(artifact_folder), access_log="1") as process,
        httpx.Client(base_url=process.url) as client,
    ):
        for _ in range(20):
            assert client.post("/v1/score", json={"user_id": "1", "item_ids": [100]}).status_code == 200
        time.sleep(0.2)
        lost = re.search(r"^augur_log_lines_lost_total (\S+)", client.get("/metrics").text, re.M)
        assert lost is not None
        assert float(lost[1]) >= 20
        client.close()
        process.popen.terminate()
        assert process.end()[0] == 0


def test_a_reader_of_the_log_that_stands_still_stops_nobody(artifact_folder: Path) -> None:
    reading, writing = os.pipe()
    with running(writing, model=str(artifact_folder), access_log="1") as process:
        os.close(writing)
        # Far more than the pipe holds.
        with httpx.Client(base_url=process.url) as client:
            for _ in range(1200):
                assert client.get("/livez", timeout=5).status_code == 200
        process.popen.terminate()
        assert process.end()[0] == 0
    os.close(reading)


def test_a_full_standard_output_does_not_stop_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = logs.lost()
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        logs.say("serving")
    assert logs.lost() == before + 1
