"""Load the settings file and environment into one `Settings`, or raise `SettingsErrors` with all faults."""

from __future__ import annotations

import difflib
import json
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import ValidationError

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.policy.yaml.fields import with_article
from zta_authz.policy.yaml.nodes import Mapping as MappingNode, Node, locate, read_documents, to_plain
from zta_authz.settings.consistency import inconsistencies
from zta_authz.settings.environment import (
    AGENT_SOCKET,
    AGENT_SOCKET_VARIABLE,
    Path,
    agent_socket,
    read_environment,
    section_of,
    source_of,
    variable_of,
)
from zta_authz.settings.model import Settings
from zta_authz.settings.otel_environment import collectors_of_environment
from zta_authz.settings.units import number_without_unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

MAX_FILE_BYTES: Final = 1024 * 1024


def load_settings(file: str | None, environ: Mapping[str, str]) -> Settings:
    """Load the settings of `file` (None: defaults), overridden by `environ`. Raises `SettingsErrors`."""
    faults: list[Fault] = []
    node: MappingNode | None = None
    try:
        node = None if file is None else _read_document(file, _read_text(file), faults)
    except SettingsErrors as error:
        faults.extend(error.faults)
    return _settings_of(file or "settings", node, environ, faults)


def parse_settings(source: str, text: str, environ: Mapping[str, str]) -> Settings:
    """Like `load_settings`, for text that was already read; `source` is its name in faults."""
    faults: list[Fault] = []
    node: MappingNode | None = None
    try:
        node = _read_document(source, text, faults)
    except SettingsErrors as error:
        faults.extend(error.faults)
    return _settings_of(source, node, environ, faults)


def _settings_of(source: str, node: MappingNode | None, environ: Mapping[str, str], faults: list[Fault]) -> Settings:
    overrides = read_environment(environ, faults)
    merged = _merge(node, overrides)
    standard, variables = collectors_of_environment(merged, environ)
    socket = agent_socket(merged, environ)
    if socket is not None:
        standard[AGENT_SOCKET], variables[AGENT_SOCKET] = socket, AGENT_SOCKET_VARIABLE
    if standard:
        overrides |= standard
        merged = _merge(node, overrides)
    sources = _ValueSources(source, node, overrides, variables)
    settings, invalid = _validate(merged, sources, faults)
    faults.extend(
        sources.fault(conflict.path, conflict.message, conflict.hint)
        for conflict in inconsistencies(settings)
        if not any(_touches(path, bad) for path in conflict.depends for bad in invalid)
    )
    if faults:
        raise SettingsErrors(faults)
    return settings


def _read_document(file: str, text: str, faults: list[Fault]) -> MappingNode:
    """Return the one document of `text`; append duplicate keys to `faults`. Raises `SettingsErrors` on invalid YAML."""
    known = len(faults)
    documents = read_documents(file, text, faults)
    if len(faults) > known and not documents:
        raise SettingsErrors(())
    if not documents:
        return MappingNode(1, 1)  # every field has a default
    first = documents[0]
    if len(documents) > 1:
        extra = documents[1]
        raise _refuse(file, "a settings file contains one document", "remove the others", extra.line, extra.column)
    if not isinstance(first, MappingNode):
        raise _refuse(
            file,
            f"settings are a mapping, not {with_article(first.kind)}",
            "write `name: value`",
            first.line,
            first.column,
        )
    return first


def _read_text(file: str) -> str:
    try:
        path = FilePath(file)
        if path.is_dir():
            raise _refuse(file, "is a directory", "name the settings file itself")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _refuse(
                file, f"has {size} bytes, more than the {MAX_FILE_BYTES} of a settings file", "is it the right file?"
            )
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise _refuse(file, "there is no such file", "check --config") from None
    except UnicodeDecodeError as error:
        raise _refuse(file, f"is not UTF-8 (byte {error.start})", "save the file as UTF-8 text") from None
    except OSError as error:
        raise _refuse(file, f"cannot be read: {error.strerror}", "check the path and its permissions") from None


def _refuse(file: str, message: str, hint: str, line: int = 0, column: int = 0) -> SettingsErrors:
    return SettingsErrors([Fault(file, line, column, message, hint)])


def _merge(node: MappingNode | None, overrides: Mapping[Path, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = to_plain(node) if node is not None else {}
    for path, value in overrides.items():
        section: Any = merged
        for step in path[:-1]:
            if not isinstance(section, dict):
                break
            section[str(step)] = section.get(str(step)) or {}
            section = section[str(step)]
        if isinstance(section, dict):  # else validation reports it
            section[str(path[-1])] = value
    return merged


class _ValueSources:
    """Where each value came from, so that a fault can name the place."""

    def __init__(
        self, file: str, node: MappingNode | None, overrides: Mapping[Path, Any], variables: Mapping[Path, str]
    ) -> None:
        """`variables` are environment variables that are not named after their field."""
        self._variables = variables
        self._file = file
        self._node = node
        self._overrides = overrides

    def fault(self, path: Path, message: str, hint: str, *, at_key: bool = False) -> Fault:
        for end in range(len(path), 0, -1):
            if path[:end] in self._overrides:
                name = self._variables.get(path[:end]) or variable_of(path[:end])
                return Fault(source_of(name), 0, 0, message, hint)
        name = ".".join(str(step) for step in path)
        message = message if at_key or not name else f"`{name}`: {message}"
        if self._node is None:
            return Fault(self._file, 0, 0, message, hint)
        position: Node = locate(self._node, path)
        parent = locate(self._node, path[:-1])
        if at_key and isinstance(parent, MappingNode) and path[-1] in parent.entries:
            position = parent.entries[str(path[-1])][0]
        return Fault(self._file, position.line, position.column, message, hint)


def _validate(merged: dict[str, Any], sources: _ValueSources, faults: list[Fault]) -> tuple[Settings, list[Path]]:
    """Validate `merged`. Invalid values are reported and removed, so that the rest can be checked too."""
    invalid: list[Path] = []
    for _ in range(2):
        try:
            return Settings.model_validate_json(json.dumps(merged)), invalid
        except ValidationError as error:
            for path, detail in _errors_of(error):
                invalid.append(path)
                faults.append(_fault_of(path, detail, sources))
                _discard(merged, path)
    return Settings(), [*invalid, ()]


def _errors_of(error: ValidationError) -> list[tuple[Path, ErrorDetails]]:
    """Return each error with its path, except "too short" errors of lists whose items are invalid."""
    errors = [(tuple(detail["loc"]), detail) for detail in error.errors(include_url=False)]
    paths = [path for path, _ in errors]

    def follows_from_items(path: Path, detail: ErrorDetails) -> bool:
        inside = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        return inside and detail["type"] == "too_short"

    return [(path, detail) for path, detail in errors if not follows_from_items(path, detail)]


def _discard(merged: dict[str, Any], path: Path) -> None:
    """Remove the innermost field that contains the fault, or the section that lacks a required field."""
    holder, key = merged, str(path[0]) if path else ""
    section: Any = merged
    for step in path:
        if not isinstance(section, dict) or step not in section:
            break
        holder, key = section, str(step)
        section = section[step]
    if path:
        holder.pop(key, None)
    else:
        merged.clear()


def _touches(path: Path, bad: Path) -> bool:
    shorter = min(len(path), len(bad))
    return path[:shorter] == bad[:shorter]


def _fault_of(path: Path, detail: ErrorDetails, sources: _ValueSources) -> Fault:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return sources.fault(path, f"unknown field `{path[-1]}`", _did_you_mean(path), at_key=True)
        case "missing":
            return sources.fault(path, "this field is required", "add it")
        case "zta":
            return sources.fault(path, str(context["message"]), str(context["hint"]))
        case "literal_error" | "enum":
            return sources.fault(path, "not one of the values of this field", f"write {context['expected']}")
    known = _PLAIN_WORDS.get(detail["type"])
    if known is not None:
        message, hint = known
        return sources.fault(path, message, number_without_unit(str(path[-1]), detail.get("input")) or hint)
    return sources.fault(path, detail["msg"][:1].lower() + detail["msg"][1:], "see the settings reference")


_PLAIN_WORDS: Final = {
    "string_type": ("must be text", "put the value in quotes"),
    "bool_type": ("must be true or false", "write `true` or `false`, without quotes"),
    "int_type": ("must be a whole number", "write digits, without quotes"),
    "int_from_float": ("must be a whole number", "write digits, without a fraction"),
    "float_type": ("must be a number", "write a number, without quotes"),
    "tuple_type": ("must be a list", "write it as `[a, b]`"),
    "dict_type": ("must be a mapping", "write it as `{name: value}`"),
    "model_type": ("must be a mapping", "write it as `{name: value}`"),
    "string_too_short": ("must not be empty", "write a value, or remove the field"),
    "too_short": ("must not be empty", "write at least one value, or remove the field"),
}


def _did_you_mean(path: Path) -> str:
    model: type[BaseModel] | None = Settings
    for step in path[:-1]:
        if isinstance(step, int):  # an item of the preceding list
            continue
        field = None if model is None else model.model_fields.get(step)
        model = None if field is None else section_of(field.annotation) or _item_of(field.annotation)
    names = list(model.model_fields) if model is not None else []
    close = difflib.get_close_matches(str(path[-1]), names, 1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"fields here are {', '.join(names)}" if names else "see the settings reference for the fields here"


def _item_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a list's items, or None if they have none."""
    return next((model for choice in get_args(annotation) if (model := section_of(choice) or _item_of(choice))), None)
