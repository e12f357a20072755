"""Text files of separated fields, read by Arrow; a line it stumbles over is found again and named.

Arrow is fast but does not say reliably which line is bad, so that on an error the file is read once more, slowly, up
to the first line that breaks a rule.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from model.data.dataset import DataError
from model.data.tables import Table

Kind = type[int] | type[float] | type[str] | tuple[str, ...]  # what a column holds; a tuple lists the texts allowed

ARROW_TYPES: dict[object, Any] = {int: pa.int64(), float: pa.float64()}
INTEGER = re.compile(r"\s*-?[0-9]{1,30}\s*")


def stable_id(text: str) -> int:
    """A text as an integer from 0 to 2**63 - 1, the same on every machine (blake2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def is_int64(text: str) -> bool:
    """Whether the text is a 64-bit integer in decimal digits."""
    return INTEGER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63


def text_lines(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1; DataError at one that is not decodable."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode(encoding if number == 1 else encoding.removesuffix("-sig")).rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: line {number}: {raw[:80]!r}: must be {encoding[:5]} text") from error
            if line.strip():
                yield number, line


def split_line(path: Path, number: int, line: str, delimiter: str) -> list[str]:
    """The fields of a line; quotes mean something between commas alone. DataError at one that is left open."""
    if delimiter != ",":
        return line.split(delimiter)
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: line {number}: {line[:80]!r}: {error}: quotes must come in pairs") from error


def header(path: Path, delimiter: str) -> list[str]:
    """The column names of a file's first line; of `name:type` the name."""
    for number, line in text_lines(path):
        if number == 1:
            return [name.partition(":")[0].strip() for name in split_line(path, number, line, delimiter)]
        break
    raise DataError(f"{path}: line 1: must hold the column names")


def read_text(
    path: Path, columns: Mapping[str, Kind], *, delimiter: str = ",", names: Sequence[str] | None = None
) -> Table:
    """The named columns of a text file.

    Args:
        path: the file; UTF-8, blank lines are skipped.
        columns: the columns wanted, and what they hold.
        delimiter: one character.
        names: all columns in order, for a file without a header line.

    Raises:
        DataError: the file is missing, or a line breaks a rule.
    """
    blocks = list(text_blocks(path, columns, delimiter=delimiter, names=names))
    schema = pa.schema([(name, ARROW_TYPES.get(kind, pa.string())) for name, kind in columns.items()])
    return Table(
        path, pa.Table.from_batches(blocks, schema), lambda row: f"line {_line_of(path, row + (0 if names else 1))}"
    )


def _line_of(path: Path, place: int) -> int:
    """The number of the line at a place among those that are not blank."""
    return next(itertools.islice(text_lines(path), place, None))[0]


def text_blocks(
    path: Path,
    columns: Mapping[str, Kind],
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    block_bytes: int = 8 << 20,
    forgive: Callable[[str], bool] | None = None,
) -> Iterator[Any]:
    """The file as Arrow record batches of about `block_bytes` of text each, in order.

    A line with the wrong number of fields is passed over if `forgive` says so. See `read_text` for the rest.
    """
    every = list(names or header(path, delimiter))
    if missing := [name for name in columns if name not in every]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; there are {', '.join(every)}")
    try:
        with pa_csv.open_csv(
            path,
            pa_csv.ReadOptions(
                use_threads=False, block_size=block_bytes, column_names=every, skip_rows=0 if names else 1
            ),
            pa_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if delimiter == "," else False,
                invalid_row_handler=None if forgive is None else _handler(forgive),
            ),
            pa_csv.ConvertOptions(
                column_types={name: ARROW_TYPES.get(kind, pa.string()) for name, kind in columns.items()},
                include_columns=list(columns),
                null_values=[],
            ),
        ) as reader:
            for block in reader:
                _only_allowed(block, columns)
                yield block
    except (pa.ArrowException, OSError) as error:
        fault = _first_fault(path, columns, every, delimiter, forgive, headed=not names)
        raise fault or DataError(f"{path}: {error}") from error


def _handler(forgive: Callable[[str], bool]) -> Callable[[Any], str]:
    return lambda row: "skip" if forgive(row.text) else "error"


def _only_allowed(block: Any, columns: Mapping[str, Kind]) -> None:
    for name, kind in columns.items():
        if isinstance(kind, tuple) and not pc.all(pc.is_in(block[name], pa.array(kind))).as_py():
            raise pa.ArrowInvalid(f"column {name!r}: must be one of {', '.join(kind)}")


def _first_fault(
    path: Path,
    columns: Mapping[str, Kind],
    every: Sequence[str],
    delimiter: str,
    forgive: Callable[[str], bool] | None,
    *,
    headed: bool,
) -> DataError | None:
    """The error for the first line that breaks a rule, if one does."""
    for number, line in itertools.islice(text_lines(path), int(headed), None):
        fields = split_line(path, number, line, delimiter)
        if len(fields) != len(every):
            if forgive and forgive(line):
                continue
            named = f", column {every[len(fields)]!r} missing" if len(fields) < len(every) else ""
            return DataError(f"{path}: line {number}{named}: {len(fields)} fields: must have {len(every)}")
        for name, value in zip(every, fields, strict=True):
            if name in columns and (rule := _broken_rule(value, columns[name])):
                return DataError(f"{path}: line {number}, column {name!r}: {value!r}: {rule}")
    return None


def _broken_rule(text: str, kind: Kind) -> str | None:
    if isinstance(kind, tuple):
        return None if text in kind else f"must be one of {', '.join(kind)}"
    if kind is int and not is_int64(text):
        return "must be a 64-bit integer"
    if kind is float:
        try:
            float(text)
        except ValueError:
            return "must be a number"
    return None
