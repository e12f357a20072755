from __future__ import annotations

from typing import Any

import pytest
from service_parts import TwinScorer

from service.errors import NotFoundError
from service.models import Models, Routes, Served
from service.settings import ConfigError


def models(routes: str, *names: str) -> Models:
    twin: Any = TwinScorer()
    return Models([Served(name, twin) for name in names], Routes.parse(routes))


def test_without_routes_the_first_model_answers_everybody() -> None:
    found = models("", "a", "b")
    assert {found.of_user(str(user)).name for user in range(100)} == {"a"}
    assert found.default.name == "a"
    assert found.get("b").name == "b"
    assert [each.name for each in found] == ["a", "b"]
    assert found.shadows_of("1") == []
    with pytest.raises(NotFoundError, match='model "c": not served; there are a, b'):
        found.get("c")


def test_a_split_is_sticky_and_of_the_stated_size() -> None:
    found = models("a=80, b=20", "a", "b")
    users = [str(user) for user in range(20_000)]
    first = [found.of_user(user).name for user in users]
    assert first == [found.of_user(user).name for user in users]
    assert first.count("b") / len(users) == pytest.approx(0.2, abs=0.01)
    assert found.default.name == "a"
    # A larger share keeps everybody who had it.
    wider = models("a=60,b=40", "a", "b")
    moved = {(before, wider.of_user(user).name) for user, before in zip(users, first, strict=True)}
    assert moved == {("a", "a"), ("a", "b"), ("b", "b")}


def test_shadows_score_a_share_of_the_users_independently_of_the_split() -> None:
    found = models("a=50,b=50,c=shadow:10,d=shadow", "a", "b", "c", "d")
    users = [str(user) for user in range(20_000)]
    shadowed = [[each.name for each in found.shadows_of(user)] for user in users]
    assert all("d" in each for each in shadowed)
    assert sum("c" in each for each in shadowed) / len(users) == pytest.approx(0.1, abs=0.01)
    both = sum("c" in each and found.of_user(user).name == "b" for user, each in zip(users, shadowed, strict=True))
    assert both / len(users) == pytest.approx(0.05, abs=0.01)


def test_a_new_version_takes_the_place_of_the_old_one() -> None:
    found = models("", "a")
    before = found.of_user("1")
    twin: Any = TwinScorer()
    found.put(Served("a", twin))
    assert found.of_user("1") is not before
    assert len(list(found)) == 1


@pytest.mark.parametrize(
    ("routes", "rule"),
    [
        ("a=x", "a number from 0"),
        ("a=-1", "a number from 0"),
        ("a=nan", "a number from 0"),
        ("a=1,a=2", "each name once"),
        ("=1", "NAME=WEIGHT"),
        ("a=0", "weight above 0"),
        ("a=shadow", "weight above 0"),
        ("a=1,b=shadow:101", "from 0 to 100"),
        ("z=1", "'z' is no model; there are a, b"),
    ],
)
def test_routes_that_say_nothing_sensible_are_refused(routes: str, rule: str) -> None:
    with pytest.raises(ConfigError, match="AUGUR_ROUTES.*" + rule):
        models(routes, "a", "b")


def test_a_name_stands_once() -> None:
    with pytest.raises(ConfigError, match="each once"):
        models("", "a", "a")
