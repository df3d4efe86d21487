"""docs/settings-reference.md, made from the model: each setting, its variable, what may be written, and its default.

    python -m zta_authz.settings.reference docs/settings.md > docs/settings-reference.md

What a setting means is told by people, in the tables of docs/settings.md, and taken over from there. Neither page can
miss one: tests compare both with the model.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticUndefined, to_jsonable_python

from zta_authz.settings.environment import section_of, variable_of
from zta_authz.settings.model import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

INTRODUCTION: Final = """\
# Settings reference

Made by `make docs` from the settings' own model and, for what they mean, from [settings](settings.md), which says more.
Do not edit.

"none" as a default: the setting is off, or follows from another one. "needed": only where its section is there.
"""
_UNITS: Final = {"_seconds": "seconds", "_bytes": "bytes", "_ms": "milliseconds"}
_WORDS: Final = {"boolean": "`true` or `false`", "string": "text", "integer": "whole number", "number": "number"}

Schema = dict[str, Any]


def meanings(text: str) -> dict[str, str]:
    """What docs/settings.md says of each setting, by its name; links within that page are made to lead there."""
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \| .*? \| (.*) \|$", text, re.MULTILINE)
    return {name: meaning.replace("](#", "](settings.md#") for name, meaning in rows}


def reference(told: Mapping[str, str]) -> str:
    """The page, with a line feed at its end; `told` says what each setting means."""
    return "\n".join([INTRODUCTION, *_sections(Settings, (), told)])


def _sections(model: type[BaseModel], path: tuple[str, ...], told: Mapping[str, str]) -> Iterator[str]:
    """The model's own settings as a table, then each section below it."""
    schema = model.model_json_schema()
    if path:
        yield f"## `{'.'.join(path)}`\n"
        yield f"{_paragraph(model)}\n"
    else:
        yield "## At the top\n"
    rows = [
        _row((*path, name), field, schema, told)
        for name, field in model.model_fields.items()
        if section_of(field.annotation) is None
    ]
    if rows:
        yield "| setting | variable | what may be written | default | meaning |\n| --- | --- | --- | --- | --- |"
        yield "\n".join(rows) + "\n"
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield from _sections(section, (*path, name), told)


def _paragraph(model: type[BaseModel]) -> str:
    """The model's docstring as running text."""
    return " ".join((model.__doc__ or "").split())


def _row(path: tuple[str, ...], field: FieldInfo, schema: Schema, told: Mapping[str, str]) -> str:
    name, key = path[-1], ".".join(path)
    kind = _kind(schema["properties"][name], schema.get("$defs", {}))
    unit = next((f" ({unit})" for ending, unit in _UNITS.items() if name.endswith(ending)), "")
    return f"| `{key}` | `{variable_of(path)}` | {kind}{unit} | {_default(field)} | {told.get(key, '')} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "needed"
    plain = to_jsonable_python(value)
    return "none" if plain is None else f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _kind(schema: Schema, defs: Schema) -> str:
    """What may be written, in words."""
    if "$ref" in schema:
        return _kind(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return " or ".join(_kind(each, defs) for each in schema["anyOf"] if each != {"type": "null"})
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return _list(schema, defs)
        case "object" if "properties" in schema:
            return f"{{{', '.join(f'`{name}`' for name in schema['properties'])}}}"
        case "object":
            return "mapping of texts"
        case kind:
            return _WORDS[str(kind)] + _range(schema)


def _list(schema: Schema, defs: Schema) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    size = f", {least} to {most} of them" if most is not None else ", at least one" if least else ""
    return f"list of {_kind(schema['items'], defs)}{size}"


def _range(schema: Schema) -> str:
    if "minimum" not in schema and "maximum" not in schema:
        return ""
    return f", {schema.get('minimum', '')} to {schema.get('maximum', '')}"


if __name__ == "__main__":
    sys.stdout.write(reference(meanings(Path(sys.argv[1]).read_text(encoding="utf-8"))))
