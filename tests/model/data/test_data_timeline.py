from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import DEV, TEST, TRAIN, Behaviors, Impressions
from model.data.dataset import IntArray
from model.data.timeline import Past, past_and_clicks, split_by_time

SHOWN = 0


class Event(NamedTuple):
    user: int
    time: int
    item: int
    action: int  # of a past event
    clicked: int  # of an impression


def events(most: int) -> st.SearchStrategy[list[Event]]:
    small = st.integers(0, 3)
    return st.lists(
        st.builds(Event, small, st.integers(0, 8), st.integers(-2, 4), st.integers(0, 2), st.integers(0, 1)),
        max_size=most,
    )


def ints(values: list[int]) -> IntArray:
    return np.array(values, dtype=np.int64)


def build(past: list[Event], window: list[Event], shown: int | None = SHOWN) -> Behaviors:
    columns = [[event[place] for event in past] for place in range(4)]
    user_ids, times, items, actions = map(ints, columns)
    shown_columns = [[event[place] for event in window] for place in range(5)]
    impressions = Impressions(
        ints(shown_columns[0]),
        ints(shown_columns[2]),
        ints(shown_columns[1]),
        ints(shown_columns[4]).astype(np.int8),
        np.zeros(len(window), dtype=np.int8),
    )
    return past_and_clicks(
        Past(user_ids, items, times, actions.astype(np.int8)),
        impressions,
        np.full(len(window), 2, dtype=np.int8),
        shown=shown,
    )


def by_loop(past: list[Event], window: list[Event]) -> list[tuple[int, int, int, int, int]]:
    """User, time, item, action and negative of each behaviour, from the definition."""
    keyed = [((e.user, e.time, 0, place), e, e.action != SHOWN, e.action) for place, e in enumerate(past)]
    keyed += [((e.user, e.time, 1 + e.clicked, place), e, e.clicked == 1, 2) for place, e in enumerate(window)]
    keyed.sort(key=lambda entry: entry[0])
    rows = []
    for key, event, chosen, action in keyed:
        is_past = key[2] == 0
        passed_over = [e.item for k, e, taken, _ in keyed if e.user == event.user and not taken and k < key]
        negative = passed_over[-1] if passed_over and not is_past else event.item
        if is_past or chosen:
            rows.append((event.user, event.time, event.item, action, negative))
    return rows


def rows_of(behaviors: Behaviors) -> list[tuple[int, int, int, int, int]]:
    assert behaviors.actions is not None
    assert behaviors.negatives is not None
    users = np.repeat(behaviors.user_ids, np.diff(behaviors.offsets))
    columns = (users, behaviors.timestamps_ms, behaviors.item_ids, behaviors.actions, behaviors.negatives)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(past=events(12), window=events(12))
def test_behaviors_and_negatives_equal_the_loop(past: list[Event], window: list[Event]) -> None:
    assert rows_of(build(past, window)) == by_loop(past, window)


@given(past=events(8), window=events(14), end=st.integers(0, 8))
def test_what_comes_later_changes_nothing_earlier(past: list[Event], window: list[Event], end: int) -> None:
    past = [event._replace(time=0) for event in past]
    whole = rows_of(build(past, window))
    until = rows_of(build(past, [event for event in window if event.time <= end]))
    assert [row for row in whole if row[1] <= end] == until


@given(past=events(8), window=events(14))
def test_no_behaviour_at_or_after_an_impression_is_in_its_history(past: list[Event], window: list[Event]) -> None:
    behaviors = build(past, window)
    first, last = behaviors.before(ints([e.user for e in window]), ints([e.time for e in window]))
    for event, start, end in zip(window, first, last, strict=True):
        expected = sum(e.user == event.user and e.time < event.time for e in past)
        expected += sum(e.user == event.user and e.time < event.time and e.clicked == 1 for e in window)
        assert end - start == expected
        assert np.all(behaviors.timestamps_ms[start:end] < event.time)


def test_a_click_sees_what_was_shown_beside_it_and_never_what_came_later() -> None:
    window = [
        Event(1, 5, 10, 0, 1),
        Event(1, 5, 20, 0, 0),
        Event(1, 6, 30, 0, 0),
        Event(2, 1, 40, 0, 0),
        Event(2, 0, 50, 0, 1),
    ]
    assert [(row[2], row[4]) for row in rows_of(build([], window))] == [(10, 20), (50, 50)]


def test_the_past_has_no_negatives() -> None:
    past = [Event(1, 0, 5, SHOWN, 0), Event(1, 0, 6, 1, 0)]
    assert [row[4] for row in rows_of(build(past, [Event(1, 0, 7, 0, 0)]))] == [5, 6]


def test_a_click_may_have_what_the_past_passed_over() -> None:
    past = [Event(1, 0, 5, SHOWN, 0)]
    assert [row[4] for row in rows_of(build(past, [Event(1, 1, 7, 0, 1)]))] == [5, 5]
    assert [row[4] for row in rows_of(build(past, [Event(1, 1, 7, 0, 1)], shown=None))] == [5, 7]


@given(times=st.lists(st.integers(0, 20), min_size=1, max_size=60))
def test_splits_never_mix_in_time(times: list[int]) -> None:
    splits = split_by_time(ints(times))
    for early, late in ((TRAIN, DEV), (TRAIN, TEST), (DEV, TEST)):
        before, after = ints(times)[splits == early], ints(times)[splits == late]
        assert not len(before) or not len(after) or before.max() < after.min()


def test_splits_are_80_10_10() -> None:
    assert np.bincount(split_by_time(np.arange(100)[::-1])).tolist() == [80, 10, 10]
    assert len(split_by_time(ints([]))) == 0


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_split_without_error(rows: int) -> None:
    assert len(split_by_time(np.arange(rows))) == rows
