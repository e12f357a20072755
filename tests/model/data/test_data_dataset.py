import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import DEV, TEST, TRAIN, Behaviors, DataError, DataSet, Impressions, Items, dataset


def ints(*values: int) -> dataset.IntArray:
    return np.array(values, dtype=np.int64)


def behaviors(times: list[list[int]], users: list[int] | None = None) -> Behaviors:
    lengths = [len(of_user) for of_user in times]
    flat = [time for of_user in times for time in of_user]
    ids = users if users is not None else list(range(len(times)))
    return Behaviors(ints(*ids), ints(0, *np.cumsum(lengths)), np.arange(len(flat)), ints(*flat))


def test_items_must_ascend_without_repetition() -> None:
    with pytest.raises(DataError, match="ascending"):
        Items(ints(1, 1), {})
    ends = np.iinfo(np.int64)
    assert len(Items(ints(ends.min, -7, ends.max), {}).item_ids) == 3  # their differences do not fit int64
    with pytest.raises(DataError, match="tag has 1 values for 2 items"):
        Items(ints(-1, 0), {"tag": ints(1)})


@pytest.mark.parametrize(
    ("users", "offsets", "times", "rule"),
    [
        ([2, 1], [0, 1, 2], [1, 2], "user_id must be ascending"),
        ([1, 1], [0, 1, 2], [1, 2], "user_id must be ascending"),
        ([1, 2], [0, 2], [1, 2], "offsets must run"),
        ([1], [0, 1], [1, 2], "offsets must run"),
        ([1], [1, 2], [1, 2], "offsets must run"),
        ([1, 2, 3], [0, 2, 1, 2], [1, 2], "offsets must not fall"),
        ([1], [0, 2], [2, 1], "time falls within a user at place 1"),
        ([1], [0, 2], [2], "a column has 1 values for 2 behaviours"),
        ([], [], [1, 2], "offsets must run"),
    ],
)
def test_behaviors_check_their_shape(users: list[int], offsets: list[int], times: list[int], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        Behaviors(ints(*users), ints(*offsets), ints(7, 8), ints(*times))


def test_a_fall_of_time_is_found_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CHUNK", 2)
    behaviors([[5, 6, 7], [], [1, 1, 2], [0]])
    for place in range(1, 6):
        times = [1, 2, 3, 4, 5, 6]
        times[place] = 0
        with pytest.raises(DataError, match=f"place {place}$"):
            behaviors([times])


@given(
    times=st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=5),
    asked=st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 7)), max_size=20),
)
def test_before_equals_the_loop_and_excludes_ties(times: list[list[int]], asked: list[tuple[int, int]]) -> None:
    ordered = [sorted(of_user) for of_user in times]
    table = behaviors(ordered)
    users, moments = ints(*[user for user, _ in asked]), ints(*[moment for _, moment in asked])
    first, last = table.before(users, moments)
    for place, (user, moment) in enumerate(asked):
        known = ordered[user] if 0 <= user < len(ordered) else []
        seen = table.timestamps_ms[first[place] : last[place]].tolist()
        assert seen == [time for time in known if time < moment]


def test_ids_may_be_zero_and_negative() -> None:
    table = behaviors([[1], [2], [3]], users=[-5, 0, 2**62])
    first, last = table.before(ints(0, -5, 2**62, 1), ints(9, 9, 9, 9))
    assert table.timestamps_ms[first[:3]].tolist() == [2, 1, 3]
    assert (last - first).tolist() == [1, 1, 1, 0]


def test_a_data_set_names_its_actions_exactly_if_behaviors_have_them() -> None:
    items = Items(ints(0), {})
    none = Impressions(ints(), ints(), ints(), ints().astype(np.int8), ints().astype(np.int8))
    with pytest.raises(DataError, match="exactly if"):
        DataSet("x", items, behaviors([[1]]), none, actions=("click",), default_action="click")
    acted = Behaviors(ints(1), ints(0, 1), ints(0), ints(1), np.zeros(1, dtype=np.int8))
    with pytest.raises(DataError, match="default_action='buy': one of click"):
        DataSet("x", items, acted, none, actions=("click",), default_action="buy")


def test_split_takes_rows_with_their_context() -> None:
    splits = np.array([TRAIN, TEST, DEV, TEST], dtype=np.int8)
    rows = Impressions(
        ints(1, 2, 3, 4), ints(5, 6, 7, 8), ints(1, 2, 3, 4), splits * 0, splits, {"tab": ints(9, 8, 7, 6)}
    )
    part = DataSet("x", Items(ints(0), {}), behaviors([]), rows).split(TEST)
    assert len(part) == 2
    assert part.user_ids.tolist() == [2, 4]
    assert part.context["tab"].tolist() == [8, 6]
