from __future__ import annotations

from typing import Any

import pytest
from service_parts import FlakyStore, Service, error_of, event, memory, post

PATH = "/v1/catalogue"


async def items(service: Service, query: str) -> dict[str, Any]:
    answer = await service.client.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(found: dict[str, Any]) -> list[int]:
    return [item["item_id"] for item in found["items"]]


def test_the_catalogue_is_told_by_pages_by_name_and_at_random(with_service: Any) -> None:
    async def scenario(service: Service) -> None:
        first = await items(service, "limit=25")
        assert (first["model"], first["total"], first["fields"]) == ("tiny", 60, ["category"])
        assert ids(first) == list(range(100, 125))
        assert first["items"][3] == {"item_id": 103, "category": 103 % 5}
        seen, after = ids(first), first["next"]
        while after is not None:
            page = await items(service, f"limit=25&after={after}")
            seen, after = seen + ids(page), page["next"]
        assert seen == list(range(100, 160))

        named = await items(service, "item_id=159&item_id=7&item_id=101")
        assert ids(named) == [101, 159]

        drawn = [ids(await items(service, f"limit=20&seed={seed}")) for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(set(drawn[0])) == 20
        assert drawn[0] != sorted(drawn[0])
        everything = await items(service, "limit=1000&seed=3")
        assert (sorted(ids(everything)), everything["next"]) == (seen, None)

    with_service(scenario)


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("limit=0", 422, "limit"),
        ("limit=1001", 422, "limit"),
        ("after=9223372036854775808", 422, "after"),
        ("item_id=x", 422, "item_id[0]"),
        ("seed=-1", 422, "seed"),
        ("model=other", 404, None),
    ],
)
def test_a_bad_question_is_told_why(with_service: Any, query: str, status: int, field: str | None) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.client.get(f"{PATH}?{query}")
        assert answer.status_code == status, answer.text
        assert error_of(answer).get("field") == field

    with_service(scenario)


def test_some_users_are_told_while_the_store_answers(with_service: Any) -> None:
    store = FlakyStore(memory())

    async def scenario(service: Service) -> None:
        assert (await service.client.get("/v1/users")).json() == {"users": []}
        await post(service, "/v1/behaviors", {"events": [event(100, 1, user) for user in ("7", "a b", "9")]})
        assert (await service.client.get("/v1/users?limit=2")).json() == {"users": ["7", "a b"]}
        assert error_of(await service.client.get("/v1/users?limit=101"))["field"] == "limit"
        store.down = True
        answer = await service.client.get("/v1/users")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")

    with_service(scenario, store=store)
