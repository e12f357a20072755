"""Loading in one process: what is refused, what is kept, what is freed."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import model_versions as versions
import numpy as np
import pytest
from service_parts import ADMIN_KEY, ADMIN_KEYS, ITEMS, SETTINGS, VALID, Service, error_of, memory, post, score

from model.artifact import load_artifact
from service.errors import LoadInProgressError, ModelRejectedError
from service.reload import Loader, allowed, roots
from service.settings import Settings

LOAD = "/v1/models/tiny/load"


@pytest.fixture
def models(artifact_folder: Path, tmp_path: Path) -> Path:
    """A folder of models with `now`, which serves."""
    shutil.copytree(artifact_folder, tmp_path / "models" / "now")
    return tmp_path / "models"


@pytest.fixture
def serve(serving: Any, models: Path) -> Any:
    """Runs a scenario against a server of `now`."""

    def run(scenario: Any, **changes: Any) -> None:
        settings = replace(
            Settings(model=models / "now", lanes=1, inline_candidates=0, drain_seconds=1.0, timeout_ms=10_000),
            admin_keys=ADMIN_KEYS,
            **changes,
        )

        async def whole() -> None:
            async with serving(settings, store=memory()) as service:
                await scenario(service)

        asyncio.run(whole())

    return run


async def load(service: Service, body: Any = None, path: str = LOAD) -> dict[str, Any]:
    more = {} if body is None else {"json": body}
    answer = await service.client.post(path, headers=ADMIN_KEY, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def refused(service: Service, body: Any, status: int = 422, path: str = LOAD) -> dict[str, Any]:
    answer = await post(service, path, body, headers=ADMIN_KEY)
    assert answer.status_code == status, answer.text
    return error_of(answer)


def test_a_new_version_serves_after_it_was_compared(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        before = await score(service)
        version = versions.near(models / "now", models / "next")
        found = await load(service, {"path": str(models / "next")})
        assert (found["name"], found["version"], found["previous_version"]) == ("tiny", version, before["version"])
        assert found["changed"]
        assert found["overruled"] == []
        assert list(found["seconds"]) == ["read", "build", "warm", "compare"]
        compared = found["comparison"]
        assert (compared["recent"], compared["made"]) == (1, 31)
        assert 0 < compared["mean_difference"] <= compared["max_difference"] < 0.01
        shift = compared["mean_after"] - compared["mean_before"]
        assert shift == pytest.approx(compared["mean_difference"], rel=1e-3)
        assert compared["rank_correlation"] > 0.999
        assert compared["unknown_before"] == compared["unknown_after"] == 0
        after = await score(service)
        assert after["version"] == version
        assert after["scores"] != before["scores"]
        # From the same folder again, which is the path from now on: nothing to do.
        again = await load(service)
        assert (again["version"], again["changed"], again["comparison"]) == (version, False, None)
        assert list(again["seconds"]) == ["read"]
        # Under one path, a new version.
        newest = versions.near(models / "now", models / "next", 0.02)
        assert (await load(service))["version"] == newest

    serve(scenario)


def test_the_same_version_elsewhere_moves_the_path_alone(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        served = service.app.state.engine.models.get("tiny")
        shutil.copytree(models / "now", models / "copy")
        assert not (await load(service, {"path": str(models / "copy")}))["changed"]
        moved = service.app.state.engine.models.get("tiny")
        assert (moved.path, moved.scorer, moved.loaded_at) == (models / "copy", served.scorer, served.loaded_at)

    serve(scenario)


@pytest.mark.parametrize("kind", versions.BREAKS)
def test_a_broken_artifact_keeps_the_old_version_and_says_why(serve: Any, models: Path, kind: str) -> None:
    async def scenario(service: Service) -> None:
        before = await score(service)
        breaks, says = versions.BREAKS[kind]
        versions.near(models / "now", models / "now")
        breaks(models / "now")
        error = await refused(service, {"force": True})
        assert (error["code"], error["field"]) == ("model_rejected", "path")
        assert says in error["message"]
        assert error["message"].endswith(f"; tiny stays at version {before['version']}")
        assert await score(service) == before
        # A new name gets the same reason, and is not there.
        error = await refused(service, {"path": str(models / "now")}, path="/v1/models/other/load")
        assert says in error["message"]
        assert "stays" not in error["message"]
        assert (await post(service, "/v1/score", VALID | {"model": "other"})).status_code == 404

    serve(scenario)


def test_a_shift_is_refused_unless_forced(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        before = await score(service)
        version = versions.far(models / "now", models / "now")
        error = await refused(service, {})
        assert error["code"] == "model_rejected"
        assert "AUGUR_RELOAD_MAX_SHIFT" in error["message"]
        assert "field" not in error
        assert await score(service) == before
        found = await load(service, {"force": True})
        assert found["version"] == version
        assert found["comparison"]["mean_difference"] > 0.1
        assert ["AUGUR_RELOAD_MAX_SHIFT" in reason for reason in found["overruled"]] == [True]
        assert (await score(service))["version"] == version

    serve(scenario)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context_fields": ()}, "has no context fields tab"),
        ({"actions": ("click",), "default_action": "click"}, "has no actions buy"),
    ],
)
def test_what_requests_may_state_now_is_not_lost_unless_forced(
    serve: Any, models: Path, changes: Any, says: str
) -> None:
    async def scenario(service: Service) -> None:
        stated = {"context": {"tab": 1}, "history": [100, 101], "history_actions": ["buy", "click"]}
        before = await score(service, **stated)
        versions.narrow(models / "now", models / "now", **changes)
        error = await refused(service, {})
        assert says in error["message"]
        assert await score(service, **stated) == before
        found = await load(service, {"force": True})
        assert says in found["overruled"][0]
        # It was compared with the request that it could not answer, read as far as it can.
        assert found["comparison"]["recent"] == 2

    serve(scenario, reload_max_shift=1.0)


def test_scores_that_are_no_probabilities_are_refused_even_if_forced(
    serve: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(service: Service) -> None:
        before = await score(service)
        versions.near(models / "now", models / "now")
        monkeypatch.setattr("service.probe.rank_correlation", None)
        error = await refused(service, {"force": True})
        assert "it cannot be served: TypeError" in error["message"]
        scorer = service.app.state.engine.models.get("tiny").scorer
        monkeypatch.setattr(type(scorer), "score", lambda self, inputs: [np.array([np.nan])])
        error = await refused(service, {"force": True})
        assert "no probabilities" in error["message"]
        monkeypatch.undo()
        assert await score(service) == before

    serve(scenario)


def test_a_new_name_answers_by_name(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        version = versions.far(models / "now", models / "next")
        found = await load(service, {"path": str(models / "next")}, "/v1/models/other/load")
        assert (found["version"], found["previous_version"], found["comparison"]) == (version, None, None)
        assert (await score(service, model="other"))["version"] == version
        assert (await score(service))["model"] == "tiny"
        listed = (await service.client.get("/v1/models")).json()
        assert [each["name"] for each in listed["models"]] == ["tiny", "other"]
        assert str(models) not in str(listed)
        assert listed["models"][0]["loaded_at"].endswith("+00:00")
        assert listed["routes"] == {"weights": {"tiny": 1.0}, "shadows": {}}

    serve(scenario)


def test_a_path_that_the_system_does_not_take_is_told(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        error = await refused(service, {"path": str(models / ("x" * 300))})
        assert error["code"] == "model_rejected"
        assert "File name too long" in error["message"]

    serve(scenario)


def test_a_folder_elsewhere_needs_the_root(serve: Any, models: Path, tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        versions.near(models / "now", tmp_path / "elsewhere")
        assert (await load(service, {"path": str(tmp_path / "elsewhere")}))["changed"]

    serve(scenario, model_root=str(tmp_path))


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/models/other/load", {}, 404, "not_found"),
        ("/v1/models/-x/load", {"path": "/"}, 422, "invalid_input"),
        (f"/v1/models/{'x' * 65}/load", {"path": "/"}, 422, "invalid_input"),
        ("/v1/models/a%2Fb/load", {"path": "/"}, 404, "not_found"),
        (LOAD, {"path": ""}, 422, "invalid_input"),
        (LOAD, {"path": 1}, 422, "invalid_input"),
        (LOAD, {"force": 1}, 422, "invalid_input"),
        (LOAD, {"paths": "x"}, 422, "invalid_input"),
        (LOAD, {"path": "/etc"}, 422, "model_rejected"),
        (LOAD, {"path": "a\0b"}, 422, "model_rejected"),
        (LOAD, {"path": "x" * 4000}, 422, "model_rejected"),
    ],
)
def test_what_cannot_be_asked_is_told(serve: Any, path: str, body: Any, status: int, code: str) -> None:
    async def scenario(service: Service) -> None:
        assert (await refused(service, body, status, path))["code"] == code

    serve(scenario)


def test_a_path_leads_nowhere_else(models: Path, tmp_path: Path) -> None:
    within = roots(Settings(model=models / "now"))
    assert within == [models]
    outside = tmp_path / "outside"
    shutil.copytree(models / "now", outside)
    (models / "link").symlink_to(outside)
    (models / "mixed").mkdir()
    (models / "mixed" / "model.json").symlink_to(outside / "model.json")
    (models / "loop").symlink_to(models / "loop")
    (models / "current").symlink_to(models / "now")
    for path in ("link", "mixed", "../outside", "now/../../outside", "../models2", "link/../outside"):
        with pytest.raises(ModelRejectedError, match="not below the folder of the models"):
            allowed(f"{models}/{path}", within)
    assert allowed(str(models / "current"), within) == models / "current"
    assert allowed(str(models / "not there"), within) == models / "not there"
    with pytest.raises(ModelRejectedError, match=r"no path that can be followed|not below"):
        allowed(str(models / "loop\0"), within)
    assert roots(Settings(model_root=str(tmp_path))) == [tmp_path]
    # Not the whole disk, for a model right below its root.
    assert roots(Settings(model=Path("/model"))) == [Path("/model")]


def test_a_link_is_followed_anew_and_a_loop_of_links_is_refused(serve: Any, models: Path) -> None:
    link = models / "current"
    link.symlink_to(models / "now")

    async def scenario(service: Service) -> None:
        version = versions.near(models / "now", models / "next")
        link.unlink()
        link.symlink_to(models / "next")
        assert (await load(service))["version"] == version
        link.unlink()
        link.symlink_to(link)
        error = await refused(service, {})
        assert error["code"] == "model_rejected"

    serve(scenario, model=link)


def test_loads_of_one_name_meet_409_and_of_two_names_take_turns(
    serve: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, at_work = threading.Event(), threading.Semaphore(1)

    def held(path: Path) -> Any:
        assert at_work.acquire(blocking=False)
        assert go.wait(10)
        at_work.release()
        return load_artifact(path)

    monkeypatch.setattr("service.reload.load_artifact", held)

    async def scenario(service: Service) -> None:
        versions.near(models / "now", models / "now")
        first = asyncio.ensure_future(load(service))
        await asyncio.sleep(0.02)
        other = asyncio.ensure_future(load(service, {"path": str(models / "now")}, "/v1/models/other/load"))
        await asyncio.sleep(0.02)
        assert (await refused(service, {}, 409))["code"] == "load_in_progress"
        await score(service)
        go.set()
        assert (await first)["changed"]
        assert (await other)["previous_version"] is None
        assert not (await load(service))["changed"]

    serve(scenario)


def test_a_server_that_stops_gives_a_load_up(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        versions.near(models / "now", models / "now")
        service.app.state.engine.drain()
        assert (await refused(service, {}, 503))["code"] == "draining"

    serve(scenario)


def test_requests_in_flight_end_with_the_version_they_began_with(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        old = (await score(service))["version"]
        served = service.app.state.engine.models.get("tiny")
        new = versions.near(models / "now", models / "now")
        # The lane is at a batch of the old version while another one waits for it.
        free, busy = versions.slow_scorer(served)
        first = asyncio.ensure_future(score(service, user_id="1"))
        assert await asyncio.to_thread(busy.wait, 5)
        waiting = asyncio.ensure_future(score(service, user_id="2"))
        await asyncio.sleep(0.02)
        del served.scorer.score_counted  # what is in flight is held up already, and the comparison should not be
        assert (await load(service))["version"] == new
        late = asyncio.ensure_future(score(service, user_id="3"))
        await asyncio.sleep(0.02)
        free.set()
        assert [(await each)["version"] for each in (first, waiting, late)] == [old, old, new]

    serve(scenario)


def test_memory_of_the_old_version_goes_with_its_last_job(serve: Any, models: Path) -> None:
    async def scenario(service: Service) -> None:
        await asyncio.gather(*(score(service, user_id=str(user)) for user in range(20)))
        served = service.app.state.engine.models.get("tiny")
        alive = [weakref.ref(served.scorer), *map(weakref.ref, served.scorer.tensors)]
        free, busy = versions.slow_scorer(served)
        busy_one = asyncio.ensure_future(score(service))
        assert await asyncio.to_thread(busy.wait, 5)
        del served.scorer.score_counted  # what is in flight is held up already
        del served
        versions.near(models / "now", models / "now")
        gc.collect()
        gc.disable()  # nothing may wait for it
        try:
            await load(service)
            assert alive[0]() is not None
            free.set()
            await busy_one
            del busy_one  # whose context knows what was scored in it
            deadline = time.monotonic() + 5
            while any(each() is not None for each in alive):
                assert time.monotonic() < deadline, alive
                await asyncio.sleep(0.01)
        finally:
            gc.enable()

    serve(scenario)


def test_models_reload_on_request_and_again_if_asked_meanwhile(
    serve: Any, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        loader: Loader = service.app.state.engine.loader
        old = (await score(service))["version"]
        new = versions.near(models / "now", models / "now")
        loader.request_reload()
        loader.request_reload()
        await asyncio.sleep(0)
        loader.request_reload()
        assert loader._reload is not None
        await loader._reload
        versions.flip(models / "now")
        loader.request_reload()
        await loader._reload
        lines = [record.getMessage() for record in caplog.records if record.name == "augur.models"]
        assert lines[:2] == [
            f"model tiny: loaded {old} -> {new}",
            f"model tiny: kept {new} because it is the version on disk",
        ]
        assert lines[2].startswith(f"model tiny: kept {new} because {models}/now/model.safetensors: sha256")
        assert len(lines) == 3

    with caplog.at_level("INFO", "augur.models"):
        serve(scenario)


def test_without_a_path_of_its_own_one_must_be_named(with_service: Any, artifact_folder: Path) -> None:
    async def scenario(service: Service) -> None:
        error = await refused(service, {})
        assert error["field"] == "path"
        assert "name one" in error["message"]
        service.app.state.engine.loader._loading.add("tiny")
        with pytest.raises(LoadInProgressError):
            await service.app.state.engine.loader.load("tiny")

    with_service(scenario, settings=replace(SETTINGS, admin_keys=ADMIN_KEYS))


def waits(thread: int) -> float:
    """Seconds that a thread could have run and had no core; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Clocks:
    """Time of the thread that asks and of another, told two ways; what they took is no more than the lesser.

    The clock less their waits for a core also counts when a virtual machine's core was lent elsewhere; what they ran
    also counts what one ran while the other rested.
    """

    def __init__(self, other: ThreadPoolExecutor) -> None:
        self._native, thread = other.submit(lambda: (threading.get_native_id(), threading.get_ident())).result()
        self._run = time.pthread_getcpuclockid(thread)

    def read(self) -> tuple[float, float, float]:
        """Seconds by the clock, by the clock less waits, and run."""
        now = time.perf_counter()
        waited = waits(threading.get_native_id()) + waits(self._native)
        return now, now - waited, time.thread_time() + time.clock_gettime(self._run)


def test_the_loop_goes_on_while_a_model_loads(serve: Any, models: Path) -> None:
    """Lenient in all, for machines with much else to do, and less so in what is not the scheduler's doing."""

    async def scenario(service: Service) -> None:
        clocks = Clocks(service.app.state.engine.loader._thread)
        versions.near(models / "now", models / "now")
        work = asyncio.ensure_future(load(service))
        read = [clocks.read()]
        while not work.done():
            await asyncio.sleep(0.001)
            read.append(clocks.read())
        assert (await work)["changed"]
        gaps, active, run = np.diff(read, axis=0).T
        assert len(gaps) > 5
        assert float(np.median(gaps)) < 0.02
        assert max(gaps) < 0.5
        assert max(np.minimum(active, run)) < 0.02

    serve(scenario)


def test_users_stay_with_their_model_over_a_reload(serving: Any, models: Path) -> None:
    shutil.copytree(models / "now", models / "b")
    settings = Settings(
        models=f"a={models / 'now'},b={models / 'b'}", routes="a=50,b=50", lanes=1, admin_keys=ADMIN_KEYS
    )

    async def scenario() -> None:
        async with serving(settings, store=memory()) as service:
            users = [str(user) for user in range(40)]
            before = [(await score(service, user_id=user))["model"] for user in users]
            versions.near(models / "b", models / "b")
            assert (await load(service, path="/v1/models/b/load"))["comparison"]["recent"] == before.count("b")
            found = [await score(service, user_id=user) for user in users]
            assert [each["model"] for each in found] == before
            assert len({(each["model"], each["version"]) for each in found}) == 2

    asyncio.run(scenario())


def test_the_last_requests_are_kept_and_no_more(serve: Any) -> None:
    async def scenario(service: Service) -> None:
        for user in range(40):
            await score(service, user_id=str(user), item_ids=ITEMS[:2])
        kept = service.app.state.engine.recent.of("tiny")
        assert [replay.asked.user_id for replay in kept] == [str(user) for user in range(8, 40)]
        assert service.app.state.engine.recent.of("other") == []

    serve(scenario)
