"""What a user takes of Redis, stated for sizing in docs/operations.md, is measured again."""

from __future__ import annotations

import re
from pathlib import Path

from redis_parts import RedisServer

from service.stores.records import RECORD
from service.stores.redis import key

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
USERS = 20_000


def test_a_user_takes_as_much_of_redis_as_the_page_says(redis_server: RedisServer) -> None:
    said = re.search(r"`user_bytes`: ([\d,]+) with 100 behaviours, ([\d,]+) with 50, ([\d,]+) with 10 ", PAGE)
    write = re.search(r'eval "(for u = 1, 100000 do .+ end)" 0 \$n', PAGE)
    assert said is not None
    assert f"100 * {RECORD.itemsize}, " in PAGE
    assert write is not None
    assert "'augur:1:{' .. 1000000000 + u .. '}'" in write[1]
    assert key("1000000001") == b"augur:1:{1000000001}"
    for behaviors, stated in zip((100, 50, 10), said.groups(), strict=True):
        redis_server.ask("FLUSHALL")
        before = used(redis_server)
        redis_server.ask("EVAL", write[1].replace("100000", str(USERS), 1), 0, behaviors)
        assert redis_server.ask("DBSIZE") == USERS
        # Redis' tables of keys are of powers of two: some tens of bytes with it.
        assert abs((used(redis_server) - before) / USERS - int(stated.replace(",", ""))) < 60


def used(server: RedisServer) -> int:
    return int(re.search(r"^used_memory:(\d+)", server.ask("INFO", "memory"), re.MULTILINE)[1])  # type: ignore[index]
