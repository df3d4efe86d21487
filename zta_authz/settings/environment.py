"""Read `ZTA_` environment variables into values by path: `ZTA_WORKLOAD__NAMESPACE` sets `workload.namespace`.

A list is written as YAML or JSON, or with commas; a mapping as YAML or JSON, or as `key=value` with commas. Empty text
or `null` clears a field that may be null. Variables that Kubernetes injects for a Service whose name starts with `zta`
are ignored.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from zta_authz.errors import Fault
from zta_authz.policy.yaml.nodes import read_documents, to_plain
from zta_authz.settings.model import Settings
from zta_authz.settings.units import number_without_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX: Final = "ZTA_"
NOT_SETTINGS: Final = frozenset(("ZTA_ENVOY",))
"""Variables of this project that are not settings: the Envoy binary used by the development tools."""
Path = tuple[str | int, ...]
AGENT_SOCKET: Final[Path] = ("workload_api", "socket")
AGENT_SOCKET_VARIABLE: Final = "SPIFFE_ENDPOINT_SOCKET"
"""The standard location of the Workload API (SPIFFE Workload Endpoint, section 4), if the settings don't name one."""

_NULL: Final = ("", "null")

_SERVICE_LINK = re.compile(
    r"ZTA(?:_[A-Z0-9_]+)?_"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)"
)
"""The variables that the kubelet injects into every pod for each Service of the namespace (`enableServiceLinks`)."""


def source_of(name: str) -> str:
    """Return the name of a variable in faults."""
    return f"environment variable {name}"


def variable_of(path: Path) -> str:
    """Return the variable that sets the field at `path`."""
    return PREFIX + "__".join(str(step).upper() for step in path)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model behind an annotation such as `TlsSettings | None`, or None for a leaf."""
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def read_environment(environ: Mapping[str, str], faults: list[Fault]) -> dict[Path, Any]:
    """Return the values that variables set, by path. Unknown variables and invalid values go to `faults`."""
    leaves = dict(_leaves(Settings, ()))
    sections = {path[:end] for path in leaves for end in range(1, len(path))}
    values: dict[Path, Any] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        path: Path = tuple(name[len(PREFIX) :].lower().split("__"))
        if path in leaves:
            fault = _read_value(name, environ[name], leaves[path], path, values)
            faults.extend(() if fault is None else (fault,))
        elif path in sections:
            inside = [variable_of(leaf) for leaf in leaves if leaf[: len(path)] == path]
            faults.append(Fault(source_of(name), 0, 0, "is a section, not a field", f"set one of {', '.join(inside)}"))
        elif not _SERVICE_LINK.fullmatch(name):
            faults.append(Fault(source_of(name), 0, 0, "is not a setting", _did_you_mean(name, leaves)))
    return values


def agent_socket(merged: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """Return the Workload API's address from its standard variable, or None if the settings don't use it.

    It is used if the settings have the section `workload_api` without `socket`, or take our certificate from the
    Workload API. The variable alone changes nothing: the trusted authorities must not depend on what else runs on a
    node.
    """
    section, tls = merged.get("workload_api"), merged.get("tls")
    uses_agent = isinstance(section, dict) or (isinstance(tls, dict) and tls.get("source") == "workload_api")
    if not uses_agent or (isinstance(section, dict) and "socket" in section):
        return None
    return environ.get(AGENT_SOCKET_VARIABLE) or None


def _leaves(model: type[BaseModel], path: Path) -> Iterator[tuple[Path, Any]]:
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield (*path, name), field.annotation
        else:
            yield from _leaves(section, (*path, name))


def _did_you_mean(name: str, leaves: Mapping[Path, Any]) -> str:
    close = difflib.get_close_matches(name, [variable_of(path) for path in leaves], 1)
    return f"did you mean {close[0]}?" if close else "unset it, or see the settings' reference for the names"


def _read_value(name: str, text: str, annotation: Any, path: Path, values: dict[Path, Any]) -> Fault | None:
    kind = _kind_of(annotation)
    try:
        text.encode("utf-8")
        clears = text in _NULL and type(None) in _choices(annotation)
        values[path] = None if clears else _READERS[kind](text)
    except UnicodeEncodeError:
        return Fault(source_of(name), 0, 0, "is not UTF-8", "write it as UTF-8 text")
    except ValueError:
        hint = number_without_unit(str(path[-1]), text) or f"write {_EXAMPLES[kind]}"
        return Fault(source_of(name), 0, 0, f"cannot be read as {_NAMES[kind]}", hint)
    return None


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of `X | None`, without `Annotated`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _choices(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(choice for part in typing.get_args(annotation) for choice in _choices(part))
    return (annotation,)


def _kind_of(annotation: Any) -> type:
    for choice in _choices(annotation):
        origin = typing.get_origin(choice) or choice
        if origin in _READERS:
            return typing.cast("type", origin)
    return str


def _bool(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.strip().lower()]
    except KeyError:
        raise ValueError from None


def _list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        value = _yaml(text)
        if not isinstance(value, list):
            raise ValueError
        return value
    return [item.strip() for item in text.split(",") if item.strip()]


def _mapping(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        value = _yaml(text)
        if not isinstance(value, dict):
            raise ValueError
        return value
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError
    return {key.strip(): value.strip() for key, _, value in pairs}


def _yaml(text: str) -> Any:
    faults: list[Fault] = []
    documents = read_documents("", text, faults)
    if faults or len(documents) != 1:
        raise ValueError
    return to_plain(documents[0])


_READERS: Final[dict[Any, Any]] = {bool: _bool, int: int, float: float, tuple: _list, dict: _mapping, str: str}
_NAMES: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
    dict: "a mapping",
    str: "text",
}
_EXAMPLES: Final[dict[Any, str]] = {
    bool: "`true` or `false`",
    int: "digits, like `1000`",
    float: "a number, like `0.5`",
    tuple: '`a,b` or `["a", "b"]`',
    dict: "`app=hatshop,version=v1` or `{app: hatshop}`",
    str: "text",
}
