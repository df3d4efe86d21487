"""Builds the parts of a JSON Schema: each function returns a schema for one field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from re import Pattern

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DURATION: Final = r"^(?:[0-9]+(?:\.[0-9]+)?(?:ms|h|m|s))+$"
MOMENT: Final = r"^[0-9W-]{7,10}T[0-9:.,]{2,}(?:Z|[+-][0-9:.]{2,})$"


def whole(pattern: Pattern[str]) -> str:
    """A reader's pattern as the schema has it: JSON Schema searches, and readers match the whole text."""
    return f"^(?:{pattern.pattern})$"


def text(description: str, *, pattern: str = "", most: int | None = None, examples: Iterable[str] = ()) -> Schema:
    """A non-empty string of at most `most` characters."""
    schema: Schema = {"description": description, "type": "string", "minLength": 1}
    if pattern:
        schema["pattern"] = pattern
    if most is not None:
        schema["maxLength"] = most
    return _with(schema, examples=list(examples))


def word(description: str, words: Iterable[str], default: str | None = None) -> Schema:
    """One of several words."""
    return _with({"description": description, "enum": [str(one) for one in words]}, default=default)


def flag(description: str) -> Schema:
    """A boolean, false by default."""
    return {"description": description, "type": "boolean", "default": False}


def number(description: str, least: int, most: int, default: int | None = None) -> Schema:
    """A whole number from `least` to `most`."""
    schema: Schema = {"description": description, "type": "integer", "minimum": least, "maximum": most}
    return _with(schema, default=default)


def duration(description: str, longest: float, default: str | None = None, example: str = "5m") -> Schema:
    """A duration of at most `longest` seconds, which only the description says."""
    days, rest = divmod(int(longest), 86400)
    limit = f"{days} days" if days else f"{rest // 3600} h" if rest >= 3600 else f"{rest // 60} min"
    schema = text(f"{description} At most {limit}.", pattern=_DURATION, examples=[example])
    return _with(schema, default=default)


def moment(description: str) -> Schema:
    """A time in RFC 3339 with its offset."""
    described = f"{description} RFC 3339 with `Z` or an offset."
    return text(described, pattern=MOMENT, examples=["2027-01-31T18:00:00Z"])


def listed(description: str, items: Schema, most: int | None = None) -> Schema:
    """A list of one to `most` items."""
    return _with({"description": description, "type": "array", "items": items, "minItems": 1}, maxItems=most)


def texts(description: str, *, pattern: str = "", most: int | None = None, examples: Iterable[str] = ()) -> Schema:
    """A list of non-empty strings."""
    item: Schema = {"type": "string", "minLength": 1}
    if pattern:
        item["pattern"] = pattern
    schema = listed(description, item, most)
    return _with(schema, examples=[[example] for example in examples])


def fields(
    description: str, properties: Mapping[str, Schema], *, required: Iterable[str] = (), one_of: Iterable[str] = ()
) -> Schema:
    """A mapping with these fields only. It has all that are `required` and, of `one_of`, at least one."""
    schema: Schema = {
        "description": description,
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    alternatives = [{"required": [name]} for name in one_of]
    return _with(schema, required=list(required), anyOf=alternatives)


def table(description: str, values: Schema, *, names: Schema | None = None, most: int | None = None) -> Schema:
    """A mapping from names of the writer's choice to values. `names` is the schema of the names."""
    schema: Schema = {"description": description, "type": "object", "additionalProperties": values}
    return _with(schema, propertyNames=names, maxProperties=most)


def labels(description: str) -> Schema:
    """A mapping of strings."""
    return table(description, {"type": "string"})


def not_both(schema: Schema, *pairs: tuple[str, str]) -> Schema:
    """The schema, refusing mappings with both fields of one of the pairs."""
    return {**schema, "not": {"anyOf": [{"required": list(pair)} for pair in pairs]}}


def exactly_one(schema: Schema, *names: str) -> Schema:
    """The schema, refusing mappings that do not have exactly one of these fields."""
    return {**schema, "oneOf": [{"required": [name]} for name in names]}


def shared(name: str) -> Schema:
    """A reference to a schema that the document defines once under `$defs`."""
    return {"$ref": f"#/$defs/{name}"}


def references(schema: Any) -> set[str]:
    """The names that `schema` refers to by `shared`."""
    if isinstance(schema, dict):
        named = {schema["$ref"].removeprefix("#/$defs/")} if "$ref" in schema else set()
        return named.union(*map(references, schema.values()))
    return set().union(*map(references, schema)) if isinstance(schema, list) else set()


def _with(schema: Schema, **more: Any) -> Schema:
    return schema | {name: value for name, value in more.items() if value is not None and value != []}
