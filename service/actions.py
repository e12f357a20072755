"""Between an action's name, its code in the store and its place in a model's list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.settings import ConfigError
from service.stores.records import NO_ACTION, CodeArray, IntArray, action_code

UNKNOWN = -1


class ActionCodes:
    """The actions of one model; a model without actions has none of them.

    Raises:
        ConfigError: two actions with one code, which the store could not tell apart.
    """

    def __init__(self, actions: Sequence[str], default_action: str | None) -> None:
        self.names = tuple(actions)
        codes = np.array([action_code(name) for name in actions], dtype=np.uint32)
        for place, name in enumerate(actions):
            if codes[place] == NO_ACTION or codes[place] in codes[:place]:
                raise ConfigError(f"the model's action {name!r} has the code of another in the store: rename it")
        self._default = self.names.index(default_action) if default_action in self.names else UNKNOWN
        # By slot; one that is free has code 0 and is that of no code.
        slots = _slots(np.append(codes, np.uint32(NO_ACTION)))
        self._code_in = np.zeros(slots, dtype=np.uint32)
        self._place_in = np.full(slots, self._default, dtype=np.int64)
        self._slots = np.uint32(slots)
        self._code_in[codes % self._slots] = codes
        self._place_in[codes % self._slots] = np.arange(len(codes))
        self._code_of: dict[str | None, int] = {None: NO_ACTION}
        self._code_of.update(zip(actions, codes.tolist(), strict=True))
        self._name_of = {code: name for name, code in self._code_of.items()}

    def places(self, codes: CodeArray) -> IntArray | None:
        """Places in the model's list [N], -1 for one it does not have; None for a model without actions."""
        if not self.names:
            return None
        slots = codes % self._slots
        places = self._place_in.take(slots)
        found = self._code_in.take(slots)
        if found.tobytes() != codes.tobytes():  # a third of what comparing and `any` take
            places[found != codes] = UNKNOWN
        return places

    def code(self, name: str | None) -> int:
        """The code of one of the model's actions, or of none."""
        return self._code_of[name]

    def name(self, code: int) -> str | None:
        """The name of a stored code; `#` and the code for an action this model does not have."""
        return self._name_of.get(code, f"#{code:08x}")


def _slots(codes: CodeArray) -> int:
    """A small number by which all codes have different remainders."""
    slots = len(codes) + len(codes) ** 2 // 8
    while len(np.unique(codes % np.uint32(slots))) < len(codes):
        slots += 1
    return slots
