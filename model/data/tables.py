"""Reading columns so that a bad one names its file, row, column and the rule it breaks, in one message.

Rows are counted from 1, as a person does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.data.dataset import DataError, Items

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
MISSING = -1  # the side field of an item that a public log mentions and its catalogue does not


def folder(path: Path, adapter: str) -> Path:
    """The path itself, if it is a folder; DataError otherwise."""
    if not path.is_dir():
        raise DataError(f"{adapter}:{path}: {'not a folder' if path.exists() else 'no such folder'}")
    return path


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one file, handed out as checked NumPy arrays."""

    path: Path
    data: Any  # a pyarrow.Table, which has no types of its own
    where: Callable[[int], str] = lambda place: f"row {place + 1}"  # a place counted from 0, as a person says it

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def __contains__(self, column: str) -> bool:
        return column in self.names

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.data.column_names)

    def fault(self, row: int, column: str, value: object, rule: str) -> DataError:
        """The error for the value at a place counted from 0."""
        return DataError(f"{self.path}: {self.where(row)}, column {column!r}: {value!r}: {rule}")

    def refuse(self, bad: BoolArray, column: str, rule: str) -> None:
        """DataError at the first row that is bad."""
        if bad.any():
            row = int(np.argmax(bad))
            raise self.fault(row, column, self.data[column][row].as_py(), rule)

    def whole(self, column: str, *, nulls: bool = False) -> Any:
        """The column as one Arrow array, without nulls unless they are welcome."""
        if column not in self:
            raise DataError(f"{self.path}: column {column!r} is missing; there are {', '.join(self.names)}")
        values = self.data[column].combine_chunks()
        if values.null_count and not nulls:
            raise self.fault(pc.index(pc.is_null(values), True).as_py(), column, None, "must not be null")
        return values

    def integers(self, column: str, *, minimum: int | None = None, maximum: int | None = None) -> IntArray:
        """A column of integers as int64; a boolean one as 0 and 1."""
        values = self.whole(column)
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        if not pa.types.is_integer(values.type):
            raise DataError(f"{self.path}: column {column!r} is {values.type}: must hold integers")
        if values.type == pa.uint64():
            self.refuse(values.to_numpy() > np.uint64(2**63 - 1), column, "must fit a signed 64-bit integer")
        numbers: IntArray = values.to_numpy(zero_copy_only=False).astype(np.int64)
        if minimum is not None:
            self.refuse(numbers < minimum, column, f"must be at least {minimum}")
        if maximum is not None:
            self.refuse(numbers > maximum, column, f"must be at most {maximum}")
        return numbers

    def numbers(self, column: str, *, minimum: float, maximum: float) -> npt.NDArray[np.float64]:
        """A column of finite numbers as float64."""
        values: npt.NDArray[np.float64] = self.whole(column).to_numpy(zero_copy_only=False).astype(np.float64)
        self.refuse(~((values >= minimum) & (values <= maximum)), column, f"must be from {minimum:g} to {maximum:g}")
        return values

    def strings(self, column: str, *, nulls: bool = False) -> tuple[tuple[str, ...], IntArray]:
        """The different values of a text column, and for each row [R] which of them it has; a null reads as ""."""
        values = self.whole(column, nulls=nulls)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise DataError(f"{self.path}: column {column!r} is {values.type}: must hold text")
        encoded = values.fill_null("").dictionary_encode()
        return tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.int64)

    def choices(self, column: str, allowed: Sequence[str]) -> npt.NDArray[np.int8]:
        """A text column as places in `allowed`."""
        names, codes = self.strings(column)
        place = np.array([allowed.index(name) if name in allowed else -1 for name in names] or [0], dtype=np.int8)
        self.refuse(place[codes] < 0, column, f"must be one of {', '.join(allowed)}")
        return place[codes]

    def lists(self, column: str) -> tuple[IntArray, Table]:
        """Lengths of a list column's rows [R], and the values of all rows end to end as a table of that one column."""
        values = self.whole(column)
        if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
            raise DataError(f"{self.path}: column {column!r} is {values.type}: must hold lists")
        lengths = values.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.cumsum(lengths)

        def where(place: int) -> str:
            row = int(np.searchsorted(ends, place, side="right"))
            return f"row {row + 1}, value {place - int(ends[row] - lengths[row]) + 1}"

        return lengths, Table(self.path, pa.table({column: values.flatten()}), where)

    def same_lengths(self, column: str, lengths: IntArray, other: str) -> None:
        """DataError at the first row whose list is not as long as that of the other column."""
        own = self.lists(column)[0]
        differs = own != lengths
        if differs.any():
            row = int(np.argmax(differs))
            raise self.fault(row, column, int(own[row]), f"must be as long as {other!r}, {int(lengths[row])}")

    def distinct(self, column: str, numbers: IntArray) -> IntArray:
        """The order that sorts the column; DataError at the second row of an id that comes twice."""
        order = np.argsort(numbers, kind="stable")
        twice = np.flatnonzero(np.diff(numbers[order]) == 0)
        if len(twice):
            row = int(order[twice + 1].min())
            raise self.fault(row, column, int(numbers[row]), "must not come twice")
        return order


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Table:
    """The named columns of a parquet file (all, if none are named), or DataError if it cannot be read."""
    if not path.is_file():
        raise DataError(f"{path}: {'a folder, must be one file' if path.is_dir() else 'no such file'}")
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            if twice := [name for name in present if present.count(name) > 1]:
                raise DataError(f"{path}: column {twice[0]!r}: must not come twice")
            if missing := [name for name in columns or () if name not in present]:
                raise DataError(f"{path}: column {missing[0]!r} is missing; there are {', '.join(present)}")
            return Table(path, file.read(columns=None if columns is None else list(columns)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from error


def only_columns(table: Table, allowed: Sequence[str]) -> None:
    """DataError if the table has a column that nobody would read, as one with a misspelt name."""
    if unknown := [name for name in table.names if name not in allowed]:
        raise DataError(f"{table.path}: column {unknown[0]!r} is unknown: must be one of {', '.join(allowed)}")


def catalogue(item_ids: IntArray, fields: dict[str, IntArray], seen: IntArray) -> Items:
    """Items in ascending order, with those seen in the log but not listed added, their fields MISSING."""
    missing = np.setdiff1d(seen, item_ids)
    every = np.concatenate([item_ids, missing])
    order = np.argsort(every, kind="stable")
    padding = np.full(len(missing), MISSING, dtype=np.int64)
    return Items(every[order], {name: np.concatenate([values, padding])[order] for name, values in fields.items()})
