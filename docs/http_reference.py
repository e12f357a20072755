"""The OpenAPI document as a page of Markdown: every route with its fields, every shape once, no script to run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Schema = dict[str, Any]
LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "length at least {}",
    "maxLength": "length at most {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "maxProperties": "at most {} of them",
}
INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}  # said by the type


def page(document: dict[str, Any]) -> str:
    """The page, of what `app.openapi()` gives; shapes are linked where they are used."""
    lines = [f"# HTTP reference\n\n{document['info']['description']}", INTRODUCTION]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += _operation(f"{method.upper()} {path}", operation)
    lines.append("## Shapes")
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _shape(name, schema)
    return "\n\n".join(lines) + "\n"


INTRODUCTION = (
    "Made from the OpenAPI document with the default settings; a running server shows its own at `/docs` and "
    "`/openapi.json`. The rules that no schema can say are [a page of their own](api.md)."
)


def _operation(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## `{title}`"
    yield f"{operation['summary']}."
    if "description" in operation:
        yield operation["description"]
    if parameters := operation.get("parameters"):
        rows = [(f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", "")) for one in parameters]
        yield _table(("parameter", "in", "type", "what it is"), rows)
    if body := operation.get("requestBody"):
        yield f"Body: {_content(body)}."
    answers = [(status, _content(each), each["description"]) for status, each in operation["responses"].items()]
    yield _table(("status", "body", "when"), answers)


def _content(of: dict[str, Any]) -> str:
    kinds = [_type(each["schema"]) if each.get("schema") else f"`{kind}`" for kind, each in of["content"].items()]
    return " or ".join(dict.fromkeys(kinds))


def _shape(name: str, schema: Schema) -> Iterator[str]:
    yield f"### {name}"
    yield schema["description"]
    required = schema.get("required", ())
    rows = [
        (f"`{field}`", _type(of), _presence(field in required, of), _rules(of))
        for field, of in schema["properties"].items()
    ]
    yield _table(("field", "type", "present", "rules"), rows)
    for example in schema.get("examples", ()):
        yield f"```json\n{json.dumps(example)}\n```"


def _presence(required: bool, of: Schema) -> str:
    if required:
        return "required"
    return f"default `{json.dumps(of['default'])}`" if of.get("default") is not None else "optional"


def _type(of: Schema) -> str:
    """A type in words, with links to shapes."""
    if reference := of.get("$ref"):
        name = reference.rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf", "allOf"):
        if choices := of.get(word):
            return " or ".join(dict.fromkeys(_type(each) for each in choices))
    if values := of.get("enum", [of["const"]] if "const" in of else None):
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    kind = of.get("type", "any")
    if kind == "array":
        return f"list of {_type(of.get('items', {}))}"
    if kind == "object" and isinstance(values := of.get("additionalProperties"), dict):
        return f"object of {_type(values)}"
    return "int64" if kind == "integer" and of.get("minimum") == INT64["minimum"] else str(kind)


def _rules(of: Schema) -> str:
    """What a field stands for and its bounds, with those of its choices and of its elements."""
    said = [of["description"]] if "description" in of else []
    for each in [of, *of.get("anyOf", ())]:
        said += _bounds(each)
        for name in ("items", "additionalProperties"):
            if isinstance(elements := each.get(name), dict):
                said += [f"each {rule}" for rule in _bounds(elements)]
    return "; ".join(said)


def _bounds(of: Schema) -> Iterator[str]:
    for rule, words in LIMITS.items():
        if rule in of and of[rule] != INT64.get(rule):
            yield words.format(of[rule])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
