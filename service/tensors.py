"""Documents of the Open Inference Protocol: tensors in JSON, in binary after it, or both ways in one request.

https://github.com/kserve/open-inference-protocol and its extension for binary tensors. C candidates, T behaviours.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw

from service.errors import InvalidInputError, MalformedBodyError, shorten
from service.stores.records import IntArray

INT64, BYTES, FP32 = "INT64", "BYTES", "FP32"
LONGEST_ID = 1024
NO_DATA = Raw()
NOTHING = (b"", b"null", b"[]")  # what clients write as the data of a tensor in binary

Parameter = str | int | float | bool | None
_Parameters = dict[str, Parameter]
_Sizes = list[Annotated[int, Meta(ge=0, le=2**31)]]


class Input(msgspec.Struct):
    """A tensor as it is announced; `data` is there unless it comes in binary."""

    name: str
    shape: _Sizes
    datatype: str
    parameters: _Parameters | None = None
    data: Raw = NO_DATA


class Output(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: _Parameters | None = None


class Document(msgspec.Struct):
    """The JSON of a request; clients add names of their own to it, as the model's."""

    inputs: list[Input]
    id: Annotated[str, Meta(max_length=LONGEST_ID)] | None = None
    parameters: _Parameters | None = None
    outputs: list[Output] | None = None


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a request brings: one flat array or list for each input."""

    document: Document
    values: Mapping[str, IntArray | list[str]]

    def integers(self, name: str) -> IntArray | None:
        """An INT64 input `[N]`; None if it is not there."""
        found = self.values.get(name)
        if found is None or isinstance(found, np.ndarray):
            return found
        raise InvalidInputError(f"input {shorten(name)}: its datatype is {INT64}", field=name)

    def texts(self, name: str) -> list[str] | None:
        """A BYTES input `[N]`; None if it is not there."""
        found = self.values.get(name)
        if found is None or isinstance(found, list):
            return found
        raise InvalidInputError(f"input {shorten(name)}: its datatype is {BYTES}", field=name)


_document = msgspec.json.Decoder(Document)
_flat_integers = msgspec.json.Decoder(list[int])
_nested_integers = msgspec.json.Decoder(list[list[int]])
_flat_texts = msgspec.json.Decoder(list[str])
_nested_texts = msgspec.json.Decoder(list[list[str]])


def read(body: bytes, header_length: int | None) -> Tensors:
    """A request's document and its tensors; integers in binary are views of `body` where memory is aligned.

    Args:
        body: the whole body.
        header_length: bytes of it that are JSON; None: all.

    Raises:
        MalformedBodyError: not JSON of the protocol's form, or binary data of another size than announced.
        InvalidInputError: a tensor that cannot be what it says.
    """
    if header_length is not None and header_length > len(body):
        raise MalformedBodyError(f"Inference-Header-Content-Length is {header_length}, and the body {len(body)} bytes")
    end = len(body) if header_length is None else header_length
    # A view costs nothing, where a slice would copy; most requests in JSON alone need neither.
    document = _decode(_document, body if end == len(body) else memoryview(body)[:end], "the body")
    values: dict[str, IntArray | list[str]] = {}
    for tensor in document.inputs:
        if tensor.name in values:
            raise InvalidInputError(f"input {shorten(tensor.name)} stands twice", field="inputs")
        number = _number(tensor)
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            values[tensor.name] = _from_json(tensor, number)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(body) - end:
            left = len(body) - end
            raise MalformedBodyError(
                f"input {shorten(tensor.name)}: binary_data_size is {shorten(size)}, and {left} bytes are left"
            )
        values[tensor.name] = _from_binary(tensor, number, body, end, size)
        end += size
    if end != len(body):
        raise MalformedBodyError(f"{len(body) - end} bytes after the last tensor")
    return Tensors(document, values)


def _decode(decoder: msgspec.json.Decoder[Any], content: bytes | memoryview, what: str) -> Any:
    try:
        return decoder.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        text = str(error)
        raise MalformedBodyError(f"{what}: {text[:1].lower()}{text[1:]}") from None


def _number(tensor: Input) -> int:
    """How many elements a shape has: one dimension, besides which others may be 1."""
    if not tensor.shape or sum(size != 1 for size in tensor.shape) > 1 or len(tensor.shape) > 2:
        raise InvalidInputError(
            f"input {shorten(tensor.name)}: its shape is {tensor.shape}; [N], [1, N] or [N, 1] is expected",
            field=tensor.name,
        )
    return max(tensor.shape) if min(tensor.shape) else 0


def _from_json(tensor: Input, number: int) -> IntArray | list[str]:
    if not memoryview(tensor.data):
        raise InvalidInputError(
            f"input {shorten(tensor.name)}: it has neither data nor binary_data_size", field=tensor.name
        )
    flat, nested = _decoders(tensor)
    what = f"input {shorten(tensor.name)}"
    found: list[Any]
    try:
        found = flat.decode(tensor.data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        rows = _decode(nested, tensor.data, what) if len(tensor.shape) > 1 else _decode(flat, tensor.data, what)
        found = [value for row in rows for value in row]
    _check_number(tensor, len(found), number)
    if tensor.datatype == BYTES:
        return [_text(tensor, value.encode("utf-8", "surrogatepass")) for value in found]
    try:
        return np.array(found, dtype=np.int64)
    except OverflowError:
        raise InvalidInputError(f"{what}: an integer that is no int64", field=tensor.name) from None


def _decoders(tensor: Input) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    if tensor.datatype == INT64:
        return _flat_integers, _nested_integers
    if tensor.datatype == BYTES:
        return _flat_texts, _nested_texts
    raise _other_datatype(tensor)


def _other_datatype(tensor: Input) -> InvalidInputError:
    return InvalidInputError(
        f"input {shorten(tensor.name)}: its datatype is {shorten(tensor.datatype)}; {INT64} and {BYTES} are read",
        field=tensor.name,
    )


def _from_binary(tensor: Input, number: int, body: bytes, first: int, size: int) -> IntArray | list[str]:
    if bytes(tensor.data) not in NOTHING:
        raise InvalidInputError(f"input {shorten(tensor.name)}: both data and binary_data_size", field=tensor.name)
    if tensor.datatype == BYTES:
        texts = [_text(tensor, value) for value in _elements(tensor, memoryview(body)[first : first + size])]
        _check_number(tensor, len(texts), number)
        return texts
    if tensor.datatype != INT64:
        raise _other_datatype(tensor)
    if size != number * 8:
        raise InvalidInputError(
            f"input {shorten(tensor.name)}: {size} bytes for shape {tensor.shape}, which takes {number * 8}",
            field=tensor.name,
        )
    found = np.frombuffer(body, dtype="<i8", count=number, offset=first)
    return found if found.flags.aligned else found.copy()


def _elements(tensor: Input, content: memoryview) -> list[bytes]:
    """Each a length in four bytes, little-endian, and so many bytes."""
    found, place = [], 0
    while place < len(content):
        if place + 4 > len(content):
            raise MalformedBodyError(f"input {shorten(tensor.name)}: an element is cut off within its length")
        (length,) = struct.unpack_from("<I", content, place)
        place += 4
        if place + length > len(content):
            raise MalformedBodyError(f"input {shorten(tensor.name)}: an element of {length} bytes is cut off")
        found.append(bytes(content[place : place + length]))
        place += length
    return found


def _text(tensor: Input, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"input {shorten(tensor.name)}: no UTF-8", field=tensor.name) from None


def _check_number(tensor: Input, found: int, number: int) -> None:
    if found != number:
        raise InvalidInputError(
            f"input {shorten(tensor.name)}: {found} elements for shape {tensor.shape}", field=tensor.name
        )


def only(parameters: Mapping[str, Parameter] | None, known: Sequence[str], where: str) -> Mapping[str, Parameter]:
    """Parameters, none of them unknown: one that is not obeyed must not seem to be."""
    for name in parameters or ():
        if name not in known:
            choices = ", ".join(known) or "none at all"
            raise InvalidInputError(f"{where}parameter {shorten(name)}: not known here; there are {choices}")
    return parameters or {}


def flag(parameters: Mapping[str, Parameter], name: str) -> bool | None:
    """A parameter that is true or false; None if it is not there."""
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInputError(f"parameter {shorten(name)}={shorten(value)}: true or false", field=name)
    return value


def whole(parameters: Mapping[str, Parameter], name: str, low: int, high: int) -> int | None:
    """A parameter that is an integer within a range; None if it is not there."""
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInputError(
            f"parameter {shorten(name)}={shorten(value)}: a whole number, {low} to {high}", field=name
        )
    return value
