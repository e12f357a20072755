from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service_parts import (
    SETTINGS,
    VALID,
    FlakyStore,
    Service,
    TwinScorer,
    error_of,
    memory,
    metric_names,
    post,
    score,
    with_breaker,
)

from service.tallies import Tallies, Tally

DASHBOARD = Path(__file__).resolve().parents[2] / "docker" / "grafana" / "augur.json"
NAME = re.compile(r"\b(?:augur|process|python)_\w+")


async def scrape(service: Service) -> dict[str, float]:
    """Samples as they are written, such as `augur_requests_total{code="200",route="/livez"}`."""
    text = (await service.client.get("/metrics")).text
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


def test_requests_are_counted_by_template_and_code(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        await score(service)
        await post(service, "/v1/score", VALID | {"item_ids": []})
        for path in ("/v1/users/secret/behaviors", "/v1/users/%2Fa/behaviors", "/nowhere/secret", "/livez"):
            await service.client.get(path)
        await service.client.get("/docs/assets/swagger-ui.css")
        found = await scrape(service)
        for route, code, count in [
            ("/v1/score", 200, 1),
            ("/v1/score", 422, 1),
            ("/v1/users/{user_id}/behaviors", 200, 2),
            ("unmatched", 404, 1),
            ("/livez", 200, 1),
            ("/docs/assets", 200, 1),
        ]:
            assert found[f'augur_requests_total{{code="{code}",route="{route}"}}'] == count
        assert found['augur_request_seconds_count{route="/v1/score"}'] == 2
        assert found['augur_request_seconds_bucket{le="+Inf",route="/v1/score"}'] == 2
        assert not any("secret" in name for name in found)

    with_service(scenario)


def test_stages_batches_and_sharing_are_counted(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        store: FlakyStore = service.app.state.engine.store._store
        await score(service, history=[100])
        await asyncio.gather(*(score(service, item_ids=[100, 101]) for _ in range(3)))
        store.down = True
        await score(service, user_id="2")
        found = await scrape(service)
        assert found["augur_queue_seconds_count"] == found["augur_compute_seconds_count"] == 5
        assert found["augur_store_seconds_count"] == 4
        assert found["augur_scored_requests_total"] == 5
        assert found["augur_candidates_total"] == found["augur_batch_candidates_sum"] == 20 + 6 + 20
        assert found["augur_batches_total"] == found["augur_batch_users_count"]
        assert found["augur_shared_fetches_total"] == 2
        assert found["augur_user_passes_total"] + found["augur_shared_users_total"] == 5
        assert sum(value for name, value in found.items() if name.startswith("augur_degraded_total{")) == 1
        assert found["augur_ready"] == 1
        assert found["augur_queue_candidates"] == 0
        assert found["augur_queue_limit_candidates"] == SETTINGS.queue_candidates
        version = service.app.state.engine.models.default.version
        backend = service.app.state.engine.models.default.scorer.backend
        labels = f'backend="{backend}",model="tiny",precision="exact",version="{version}"'
        assert found[f"augur_model_info{{{labels}}}"] == 1
        assert found["process_resident_memory_bytes"] > 1e6
        assert found['python_gc_collections_total{generation="0"}'] >= 0

    with_service(scenario, store=FlakyStore(memory()))


def test_busy_lanes_and_the_queue_are_seen(with_service: Any, twin: TwinScorer) -> None:
    async def scenario(service: Service) -> None:
        twin.free.clear()
        first = asyncio.ensure_future(score(service, item_ids=[1]))
        assert await asyncio.to_thread(twin.busy.wait, 5)
        second = asyncio.ensure_future(score(service, item_ids=[1, 2, 3]))
        await asyncio.sleep(0.05)
        found = await scrape(service)
        assert (found["augur_lanes_busy"], found["augur_lanes"], found["augur_queue_candidates"]) == (1, 1, 3)
        assert found["augur_lane_longest_seconds"] > 0.04
        assert (await service.client.get("/livez")).status_code == 200
        twin.free.set()
        await asyncio.gather(first, second)
        assert (await scrape(service))["augur_lanes_busy"] == 0

    with_service(scenario, scorer=twin, settings=replace(SETTINGS, stuck_seconds=60))


def test_a_stuck_lane_fails_liveness_until_it_comes_back(with_service: Any, twin: TwinScorer) -> None:
    async def scenario(service: Service) -> None:
        assert (await service.client.get("/livez")).status_code == 200
        twin.free.clear()
        asked = asyncio.ensure_future(score(service, item_ids=[1]))
        assert await asyncio.to_thread(twin.busy.wait, 5)
        await asyncio.sleep(0.4)
        answer = await service.client.get("/livez")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "stuck")
        assert "AUGUR_STUCK_SECONDS" in error_of(answer)["message"]
        assert (await service.client.get("/startupz")).status_code == 200
        twin.free.set()
        await asked
        assert (await service.client.get("/livez")).status_code == 200

    with_service(scenario, scorer=twin, settings=replace(SETTINGS, stuck_seconds=0.3))


def test_a_lane_that_ended_fails_liveness(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        lanes = service.app.state.engine.batcher.lanes
        lanes._work.put(False)
        await asyncio.to_thread(lanes._threads[0].join)
        answer = await service.client.get("/livez")
        assert error_of(answer)["message"] == "1 of 1 lanes ended"

    with_service(scenario)


def test_a_stall_of_the_event_loop_is_seen_once(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        await asyncio.sleep(0.15)
        await scrape(service)
        await asyncio.sleep(0.05)
        time.sleep(0.4)
        await asyncio.sleep(0.15)
        assert 0.2 < (await scrape(service))["augur_loop_lag_longest_seconds"] < 2
        assert (await scrape(service))["augur_loop_lag_longest_seconds"] < 0.2

    with_service(scenario)


def test_a_store_with_a_breaker_shows_it(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        with_breaker(service)
        found = await scrape(service)
        assert found['augur_store_breaker{state="half_open"}'] == 1
        assert found['augur_store_breaker{state="closed"}'] == 0
        assert found['augur_store_events_total{event="opened"}'] == 2

    with_service(scenario)


def test_the_dashboard_asks_for_metrics_that_exist(with_service: Any) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    names = {name for expression in asked for name in NAME.findall(expression)}
    assert len(asked) > 20

    async def scenario(service: Service) -> None:
        there = await metric_names(service)
        assert names <= there, names - there

    with_service(scenario)


def test_the_dashboard_can_be_provisioned() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "augur"
    assert dashboard["id"] is None
    assert next(each["type"] for each in dashboard["templating"]["list"]) == "datasource"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
        assert {"h", "w", "x", "y"} == set(panel["gridPos"])


def test_metrics_come_in_the_form_that_is_asked_for(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        assert (await service.client.get("/metrics")).headers["content-type"].startswith("text/plain")
        answer = await service.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")

    with_service(scenario)


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (3.0, 2)])
def test_a_tally_puts_a_bound_below_itself(value: float, place: int) -> None:
    tally = Tally((1.0, 2.0))
    tally.observe(value)
    assert (tally.counts.index(1), tally.total) == (place, value)


def test_buckets_resolve_below_a_millisecond() -> None:
    assert sum(bound < 1e-3 for bound in Tallies().queue_seconds.bounds) >= 5
