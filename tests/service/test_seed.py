from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis_parts import RedisServer, until

from loadtest.stack import LOCALHOST, free_port
from model.data import open_data
from service.seed import main
from service.seeding import sequences
from service.settings import Settings
from service.stores import open_store
from service.stores.records import pack


async def stored(url: str, users: list[str]) -> list[Any]:
    store = open_store(Settings(store=url, store_timeout_ms=5000))
    found = await store.histories(users)
    await store.close()
    return [None if records is None else records.tolist() for records in found]


async def write(url: str, user: str) -> None:
    store = open_store(Settings(store=url, store_write_timeout_ms=5000))
    await store.append({user: pack(np.array([7]), np.array([7]))})
    await store.close()


@pytest.mark.parametrize("kind", ["redis_server", "redis_cluster", "redis_sentinels"])
def test_a_data_set_is_loaded_once_and_again_if_asked(
    kind: str, request: pytest.FixtureRequest, data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = request.getfixturevalue(kind).url
    expected = {user: records[-9:].tolist() for user, records in sequences(open_data(f"canonical:{data_folder}"))}
    arguments = ["--store", url, "--data", f"canonical:{data_folder}"]
    first, *others = expected
    asyncio.run(write(url, first))
    for more, said in (
        ([], "28 users stored, 1 kept as they were"),
        ([], "0 users stored, 29 kept as they were"),
        (["--replace"], "29 users stored, 0 kept as they were"),
    ):
        assert main([*arguments, *more], {"AUGUR_WINDOW": "9"}) == 0
        out = capsys.readouterr().out
        assert said in out
        assert "users/s" in out
        found = asyncio.run(stored(url, list(expected)))
        assert found[1:] == [expected[user] for user in others]
        assert (found[0] == expected[first]) is bool(more)


def test_a_load_that_breaks_off_is_gone_on_with(tmp_path: Path, own_redis: RedisServer) -> None:
    """A process of its own, with a store that hangs in the middle and is killed."""
    # So many that the load is still under way when it is seen to have begun.
    users = 150_000
    folder = many_users(tmp_path / "many", users)
    command = [sys.executable, "-m", "service.seed", "--store", own_redis.url, "--data", f"canonical:{folder}"]
    loading = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}, stderr=subprocess.PIPE, text=True)
    until(lambda: own_redis.ask("DBSIZE") or loading.poll() is not None, 60, "a first user in the store")
    assert loading.poll() is None, loading.communicate()
    own_redis.pause()
    loading.send_signal(signal.SIGINT)
    _, said = loading.communicate(timeout=30)
    assert loading.returncode == 130
    assert "run it again to go on" in said
    own_redis.resume()
    kept = own_redis.ask("DBSIZE")
    assert 0 < kept < users
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True, check=True)
    assert own_redis.ask("DBSIZE") == users
    assert f"{users - kept} users stored, {kept} kept as they were" in done.stdout


def many_users(folder: Path, users: int) -> Path:
    folder.mkdir()
    pq.write_table(pa.table({"item_id": [1, 2, 3]}), folder / "items.parquet")
    pq.write_table(
        pa.table({"user_id": np.arange(users), "item_ids": [[1, 2, 3]] * users}), folder / "sequences.parquet"
    )
    return folder


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "said"),
    [
        (["--store", "memory://"], {}, 2, "AUGUR_STORE='memory://': a store that outlives this process"),
        ([], {}, 2, "AUGUR_STORE='memory://': a store that outlives this process"),
        (["--store", "redis://:s3cret@h:x"], {}, 2, "AUGUR_STORE='redis://...': host:port expected"),
        (["--store", "redis://h", "--data", "csv:x"], {}, 2, "adapter 'csv' must be one of"),
        (["--store", "redis://h", "--data", "canonical:/no/such/folder"], {}, 2, "/no/such/folder"),
        (["--store", "redis://h"], {"AUGUR_WINDOW": "x"}, 2, "AUGUR_WINDOW='x': a whole number"),
    ],
)
def test_what_cannot_be_used_is_told(
    arguments: list[str], environment: Any, status: int, said: str, data_folder: Path, capsys: Any
) -> None:
    given = arguments if "--data" in arguments else [*arguments, "--data", f"canonical:{data_folder}"]
    assert main(given, environment) == status
    shown = capsys.readouterr().err
    assert said in shown
    assert "s3cret" not in shown
    assert "Traceback" not in shown


def test_a_store_that_does_not_answer_is_told(data_folder: Path, capsys: Any) -> None:
    url = f"redis://:s3cret@{LOCALHOST}:{free_port()}/0"
    assert main(["--store", url, "--data", f"canonical:{data_folder}"], {}) == 1
    shown = capsys.readouterr().err
    assert f"{url.replace(':s3cret@', '')}: ping: " in shown
    assert "0 users were stored, run it again to go on" in shown
    assert "s3cret" not in shown


def test_a_store_that_fails_on_the_way_is_told(own_redis: RedisServer, data_folder: Path, capsys: Any) -> None:
    own_redis.ask("CONFIG", "SET", "maxmemory", "1")
    assert main(["--store", own_redis.url, "--data", f"canonical:{data_folder}"], {}) == 1
    assert "OutOfMemoryError" in capsys.readouterr().err


def test_help_says_what_it_takes(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["--help"], {})
    shown = capsys.readouterr().out
    for word in ("--store", "--data", "--replace", "canonical", "AUGUR_WINDOW", "exit status"):
        assert word in shown
