from __future__ import annotations

import numpy as np
import pytest

from service.actions import ActionCodes
from service.settings import ConfigError
from service.stores.records import action_code


def codes(*names: str | None) -> np.ndarray:
    return np.array([action_code(name) for name in names], dtype=np.uint32)


def test_names_codes_and_places() -> None:
    actions = ActionCodes(["show", "click", "buy"], "click")
    places = actions.places(codes("buy", None, "never seen", "show"))
    assert places is not None
    assert places.tolist() == [2, 1, -1, 0]
    assert [actions.name(actions.code(name)) for name in ("buy", None)] == ["buy", None]
    assert actions.name(0xABC) == "#00000abc"


def test_without_a_default_action_none_stated_is_unknown() -> None:
    places = ActionCodes(["show"], None).places(codes(None, "show"))
    assert places is not None
    assert places.tolist() == [-1, 0]


def test_a_model_without_actions_has_no_places() -> None:
    assert ActionCodes([], None).places(codes("buy")) is None


# "plumless" and "buckeroo" are the textbook collision of crc32; the empty name has code 0, which stands for none.
@pytest.mark.parametrize("names", [["plumless", "buckeroo"], ["click", "click"], [""]])
def test_actions_that_the_store_could_not_tell_apart_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="has the code of another"):
        ActionCodes(names, None)
