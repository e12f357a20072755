from __future__ import annotations

from pathlib import Path

import numpy as np

from model.data import open_data
from model.data.dataset import Behaviors, DataSet, Impressions, Items
from service.seeding import sequences
from service.stores.records import NO_ACTION, action_code


def test_every_behaviour_of_a_data_set_becomes_a_record(data_folder: Path) -> None:
    data = open_data(f"canonical:{data_folder}")
    behaviors = data.behaviors
    seeded = dict(sequences(data))
    assert list(seeded) == [str(user) for user in behaviors.user_ids]
    for place, records in enumerate(seeded.values()):
        part = slice(behaviors.offsets[place], behaviors.offsets[place + 1])
        assert records["item_id"].tolist() == behaviors.item_ids[part].tolist()
        assert records["timestamp_ms"].tolist() == behaviors.timestamps_ms[part].tolist()
        assert behaviors.actions is not None
        expected = [action_code(data.actions[action]) for action in behaviors.actions[part]]
        assert records["action"].tolist() == expected


def test_what_happened_twice_is_there_twice(data_folder: Path) -> None:
    """The logs have equal items at equal times; each is an event of its own, the same in every run."""
    data = open_data(f"canonical:{data_folder}")
    for (_, records), (_, again) in zip(sequences(data), sequences(data), strict=True):
        assert len(set(records["event_id"].tolist())) == len(records)
        assert len(set(zip(records["item_id"].tolist(), records["timestamp_ms"].tolist(), strict=True))) < len(records)
        assert records.tobytes() == again.tobytes()


def test_without_actions_and_without_behaviours() -> None:
    none = np.zeros(0, dtype=np.int64)
    few = none.astype(np.int8)
    behaviors = Behaviors(np.array([-5, 3]), np.array([0, 2, 2]), np.array([1, 2]), np.array([10, 10]))
    data = DataSet("small", Items(np.array([1, 2]), {}), behaviors, Impressions(none, none, none, few, few))
    ((user, records),) = sequences(data)
    assert user == "-5"
    assert records["action"].tolist() == [NO_ACTION, NO_ACTION]
