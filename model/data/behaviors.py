"""Which behaviours of a data set count, and whether it is told what was done: to learn what the actions are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data.dataset import ActionArray, Behaviors, DataError, DataSet

ALL, CHOSEN, WITHOUT_ACTIONS = "all", "chosen", "without_actions"
BEHAVIORS = (ALL, CHOSEN, WITHOUT_ACTIONS)


def of_behaviors(data: DataSet, kind: str) -> DataSet:
    """The data set with all of its behaviours, those that were chosen alone, or all without their actions.

    Raises DataError for another `kind`, and where the data set does not tell what was chosen.
    """
    if kind not in BEHAVIORS:
        raise DataError(f"behaviors={kind}: one of {', '.join(BEHAVIORS)}")
    if kind == ALL:
        return data
    shown, actions = data.shown_action, data.behaviors.actions
    if actions is None or (kind == CHOSEN and shown is None):
        lacking = "no actions" if actions is None else "no behaviours that were shown and not chosen"
        raise DataError(f"behaviors={kind}: {data.name} has {lacking}")
    if shown is None or kind == WITHOUT_ACTIONS:
        plain = replace(data.behaviors, actions=None)
        return replace(data, behaviors=plain, actions=(), default_action=None)
    names = tuple(name for name in data.actions if name != "shown")
    default = data.default_action if data.default_action in names else names[0] if names else None
    chosen = _chosen(data.behaviors, actions, shown, told=bool(names))
    return replace(data, behaviors=chosen, actions=names, default_action=default)


def _chosen(behaviors: Behaviors, actions: ActionArray, shown: int, *, told: bool) -> Behaviors:
    """The behaviours [N] but those of the action `shown`, whose place in the list of actions closes up."""
    kept = actions != shown
    before = np.concatenate([[0], np.cumsum(kept)])  # [N + 1] kept ones before each place
    rest = actions[kept]
    return Behaviors(
        user_ids=behaviors.user_ids,
        offsets=before[behaviors.offsets],
        item_ids=behaviors.item_ids[kept],
        timestamps_ms=behaviors.timestamps_ms[kept],
        actions=(rest - (rest > shown)).astype(np.int8) if told else None,
        negatives=None if behaviors.negatives is None else behaviors.negatives[kept],
    )
