from __future__ import annotations

import numpy as np
import pytest

from model.data import Behaviors, DataError, DataSet, Impressions, Items
from model.data.behaviors import of_behaviors

NOTHING = np.zeros(0, dtype=np.int64)
NO_IMPRESSIONS = Impressions(NOTHING, NOTHING, NOTHING, NOTHING.astype(np.int8), NOTHING.astype(np.int8))


def made(actions: list[int] | None, names: tuple[str, ...]) -> DataSet:
    """Three users: two, none and four behaviours."""
    behaviors = Behaviors(
        user_ids=np.array([1, 5, 9]),
        offsets=np.array([0, 2, 2, 6]),
        item_ids=np.array([10, 11, 12, 13, 14, 15]),
        timestamps_ms=np.array([1, 2, 1, 1, 3, 4]),
        actions=None if actions is None else np.array(actions, dtype=np.int8),
        negatives=np.array([20, 21, 22, 23, 24, 25]),
    )
    items = Items(np.arange(10, 30), {})
    return DataSet("made", items, behaviors, NO_IMPRESSIONS, names, names[0] if names else None)


def test_those_chosen_are_all_but_those_only_shown() -> None:
    data = of_behaviors(made([2, 1, 1, 0, 2, 1], ("click", "shown", "buy")), "chosen")
    behaviors = data.behaviors
    assert data.actions == ("click", "buy")
    assert data.default_action == "click"
    assert data.shown_action is None
    assert behaviors.actions is not None
    assert behaviors.negatives is not None
    assert behaviors.offsets.tolist() == [0, 1, 1, 3]
    assert behaviors.item_ids.tolist() == [10, 13, 14]
    assert behaviors.negatives.tolist() == [20, 23, 24]
    assert behaviors.timestamps_ms.tolist() == [1, 1, 3]
    assert [data.actions[place] for place in behaviors.actions] == ["buy", "click", "buy"]


def test_a_default_action_that_goes_is_replaced() -> None:
    data = of_behaviors(made([0, 1, 0, 0, 0, 1], ("shown", "click")), "chosen")
    assert data.default_action == "click"
    assert data.behaviors.offsets.tolist() == [0, 1, 1, 2]


def test_where_all_was_only_shown_nothing_is_left() -> None:
    data = of_behaviors(made([0] * 6, ("shown",)), "chosen")
    assert data.actions == ()
    assert data.behaviors.actions is None
    assert len(data.behaviors.item_ids) == 0


def test_without_actions_the_behaviours_stay() -> None:
    before = made([2, 1, 1, 0, 2, 1], ("click", "shown", "buy"))
    after = of_behaviors(before, "without_actions")
    assert after.actions == ()
    assert after.default_action is None
    assert after.behaviors.actions is None
    assert after.behaviors.item_ids is before.behaviors.item_ids
    assert of_behaviors(before, "all") is before


@pytest.mark.parametrize(
    ("kind", "actions", "names", "says"),
    [
        ("some", [0] * 6, ("shown",), "behaviors=some: one of all, chosen, without_actions"),
        ("chosen", None, (), "behaviors=chosen: made has no actions"),
        ("without_actions", None, (), "behaviors=without_actions: made has no actions"),
        ("chosen", [0] * 6, ("click",), "behaviors=chosen: made has no behaviours that were shown and not chosen"),
    ],
)
def test_what_a_data_set_cannot_tell_is_refused(
    kind: str, actions: list[int] | None, names: tuple[str, ...], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        of_behaviors(made(actions, names), kind)
