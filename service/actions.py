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
        self._order = np.argsort(codes)
        self._sorted = codes[self._order]
        self._code_of: dict[str | None, int] = {None: NO_ACTION}
        self._code_of.update(zip(actions, codes.tolist(), strict=True))
        self._name_of = {code: name for name, code in self._code_of.items()}

    def places(self, codes: CodeArray) -> IntArray | None:
        """Places in the model's list [N], -1 for one it does not have; None for a model without actions."""
        if not self.names:
            return None
        near = np.minimum(np.searchsorted(self._sorted, codes), len(self.names) - 1)
        places = np.where(self._sorted[near] == codes, self._order[near], UNKNOWN)
        return np.where(codes == NO_ACTION, self._default, places).astype(np.int64)

    def code(self, name: str | None) -> int:
        """The code of one of the model's actions, or of none."""
        return self._code_of[name]

    def name(self, code: int) -> str | None:
        """The name of a stored code; `#` and the code for an action this model does not have."""
        return self._name_of.get(code, f"#{code:08x}")
