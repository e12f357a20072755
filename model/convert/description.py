"""What a state dict does not say: the features a model was built with, in a JSON file of the user's.

I items, V values of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model import strict_json
from model.artifact_checks import LONGEST_HISTORY
from model.config import ConfigError
from model.data.dataset import IntArray

KINDS = ("item", "user", "context")
KEYS = {"settings", "max_history", "items", "columns", "history", "training_only"}
OPTIONAL = {"settings", "training_only"}
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True, eq=False)  # arrays are in it
class Column:
    """One sparse feature of the model's head."""

    name: str  # as the library has it; requests name a context field so
    kind: str  # of KINDS
    ids: IntArray  # [V] values as requests have them; of an item column the items' ids
    rows: IntArray  # [V] their rows of the embedding table
    table: str  # the library's name of it
    history_table: str  # that of the history, where it has a table of its own
    unknown: int | None = None  # the row for a value that is not among `ids`; None: zeros


@dataclass(frozen=True, slots=True)
class Description:
    """The features of a model, in the order in which its head has them."""

    settings: Mapping[str, Any]  # arguments of the library's constructor that leave no trace in the state dict
    max_history: int
    columns: tuple[Column, ...]
    history: tuple[str, ...]  # item columns that a behaviour has, in the order of the recurrent layer's input
    training_only: tuple[str, ...] = ()  # tables that no score depends on

    def column(self, name: str) -> Column:
        """A column by its name, which there must be."""
        return next(column for column in self.columns if column.name == name)

    def of_kind(self, kind: str) -> tuple[Column, ...]:
        """Columns of a kind, in their order."""
        return tuple(column for column in self.columns if column.kind == kind)

    def setting(self, name: str, default: Any) -> Any:
        """A setting as stated, else the library's default."""
        return self.settings.get(name, default)


def read_description(file: Path, settings: frozenset[str]) -> Description:
    """The description in a JSON file; `settings` are those it may state. Raises ConfigError naming file and part."""
    try:
        found = strict_json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    try:
        return _description(found, settings)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _description(found: Any, settings: frozenset[str]) -> Description:
    part = _object(found, "the document", KEYS - OPTIONAL, OPTIONAL)
    longest = part["max_history"]
    if type(longest) is not int or not 1 <= longest <= LONGEST_HISTORY:
        raise ConfigError(f"max_history={longest!r}: a whole number from 1 to {LONGEST_HISTORY}")
    stated = _object(part.get("settings", {}), "settings", set(), settings)
    items = _ids(_object(part["items"], "items", {"ids"})["ids"], "items.ids")
    if not isinstance(part["columns"], list):
        raise ConfigError("columns: must be a list")
    columns = tuple(_column(one, f"columns[{number}]", items) for number, one in enumerate(part["columns"]))
    names = [column.name for column in columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"columns: {twice[0]!r} occurs twice")
    if sum(column.kind == "user" for column in columns) > 1:
        raise ConfigError("columns: more than one of kind user; what else is known of a user is of kind context")
    history = _names(part["history"], "history")
    known = [column.name for column in columns if column.kind == "item"]
    for name in history:
        if name not in known:
            raise ConfigError(f"history: {name!r} is no column of kind item; there are {', '.join(known) or 'none'}")
    if not history:
        raise ConfigError("history: at least one column of kind item")
    return Description(stated, longest, columns, history, _names(part.get("training_only", []), "training_only"))


def _column(found: Any, where: str, items: IntArray) -> Column:
    optional = {"ids", "table", "history_table", "unknown"}
    part = _object(found, where, {"name", "kind", "rows"}, optional)
    for key in ("name", "kind", "table", "history_table"):
        if key in part and not (isinstance(part[key], str) and part[key]):
            raise ConfigError(f"{where}.{key}: must be text")
    name, kind = part["name"], part["kind"]
    if kind not in KINDS:
        raise ConfigError(f"{where}.kind={kind!r}: one of {', '.join(KINDS)}")
    if (kind == "item") == ("ids" in part):
        raise ConfigError(f"{where}.ids: {'items.ids has them' if kind == 'item' else 'missing'}")
    if kind != "item" and "history_table" in part:
        raise ConfigError(f"{where}.history_table: only of kind item")
    ids = items if kind == "item" else _ids(part["ids"], f"{where}.ids")
    rows = _integers(part["rows"], f"{where}.rows")
    if len(rows) != len(ids):
        raise ConfigError(f"{where}.rows: {len(rows)} of them for {len(ids)} ids")
    unknown = part.get("unknown")
    if unknown is not None and type(unknown) is not int:
        raise ConfigError(f"{where}.unknown={unknown!r}: a row of the table")
    table = part.get("table", name)
    return Column(name, kind, ids, rows, table, part.get("history_table", table), unknown)


def _object(found: Any, where: str, needed: set[str], optional: frozenset[str] | set[str] = frozenset()) -> Any:
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: must be an object")
    for what, names in (("missing", needed - set(found)), ("unknown", set(found) - needed - optional)):
        if names:
            have = ", ".join(sorted(needed | optional)) or "none"
            raise ConfigError(f"{where}: {what}: {', '.join(sorted(names))}; it has {have}")
    return found


def _names(found: Any, where: str) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found) or len(set(found)) < len(found):
        raise ConfigError(f"{where}: must be a list of different names")
    return tuple(found)


def _ids(found: Any, where: str) -> IntArray:
    values = _integers(found, where)
    if len(np.unique(values)) < len(values):
        raise ConfigError(f"{where}: an id occurs twice")
    return values


def _integers(found: Any, where: str) -> IntArray:
    if not isinstance(found, list) or not all(type(value) is int for value in found):
        raise ConfigError(f"{where}: must be a list of whole numbers")
    if not all(_INT64.min <= value <= _INT64.max for value in found):
        raise ConfigError(f"{where}: a number beyond 64 bits")
    return np.array(found, dtype=np.int64)
