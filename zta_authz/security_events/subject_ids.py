"""Parse the subject of a security event: RFC 9493, the additional formats of SSF 1.0, and what older transmitters send.

All texts are untrusted in size, so each has a limit. A format that is not known is parsed as one that names nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEXT: Final = 1024
"""The maximum length of one identifier, in characters."""
MAX_ALIASES: Final = 16
"""The maximum number of identifiers in `aliases`."""
MAX_MEMBERS: Final = 16
"""The maximum number of members of a complex subject."""
MAX_NAME: Final = 64
"""The maximum length of the name of a format or of a member of a complex subject, in characters."""


class IdFormat(StrEnum):
    """The identifier formats whose members are known."""

    ACCOUNT = "account"
    DID = "did"
    EMAIL = "email"
    ISS_SUB = "iss_sub"
    JWT_ID = "jwt_id"
    OPAQUE = "opaque"
    PHONE_NUMBER = "phone_number"
    SAML_ASSERTION_ID = "saml_assertion_id"
    URI = "uri"


_MEMBERS: Final[Mapping[IdFormat, tuple[str, str]]] = {
    IdFormat.ACCOUNT: ("", "uri"),
    IdFormat.DID: ("", "url"),
    IdFormat.EMAIL: ("", "email"),
    IdFormat.ISS_SUB: ("iss", "sub"),
    IdFormat.JWT_ID: ("iss", "jti"),
    IdFormat.OPAQUE: ("", "id"),
    IdFormat.PHONE_NUMBER: ("", "phone_number"),
    IdFormat.SAML_ASSERTION_ID: ("issuer", "assertion_id"),
    IdFormat.URI: ("", "uri"),
}
"""The members with the issuer and with the value. All are required."""
_COMPLEX: Final = "complex"
_ALIASES: Final = "aliases"
_COMPLEX_MEMBERS: Final = frozenset(("user", "device", "session", "application", "tenant", "org_unit", "group"))
_OLDER_NAMES: Final = {"phone": "phone_number"}


@dataclass(frozen=True, slots=True)
class SubjectId:
    """One identifier. `format` is None for a format that is not known; `issuer` is "" where the format has none."""

    format: IdFormat | None
    issuer: str = ""
    value: str = ""


Aliases = tuple[SubjectId, ...]
"""Identifiers of the same principal; usually one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of an event: a simple one, or the members of a complex one by their name.

    A complex subject without a member means any value of it (SSF 1.0, Subject Matching).
    """

    simple: Aliases = ()
    members: Mapping[str, Aliases] | None = None


def parse_subject(value: Any) -> Subject:
    """Parse a `sub_id`, or the `subject` of an older event. Raises ValueError with what is wrong.

    Older transmitters write `subject_type: iss-sub` for `format: iss_sub`, and leave `format: complex` out.
    """
    if not isinstance(value, dict):
        raise ValueError("the subject is not an object")
    name = _format_name(value)
    if name == _COMPLEX or (not name and not _COMPLEX_MEMBERS.isdisjoint(value)):
        return Subject(members=_parse_members(value))
    return Subject(simple=_parse_aliases(value, name))


def _format_name(value: Mapping[str, Any]) -> str:
    name = value.get("format", value.get("subject_type", ""))
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise ValueError(f"the subject's `format` is not a string of at most {MAX_NAME} characters")
    if "format" in value:
        return name
    name = name.replace("-", "_")
    return _OLDER_NAMES.get(name, name)


def _parse_members(value: Mapping[str, Any]) -> dict[str, Aliases]:
    names = [name for name in value if name not in ("format", "subject_type")]
    if not 0 < len(names) <= MAX_MEMBERS or any(len(name) > MAX_NAME for name in names):
        raise ValueError(f"a complex subject has 1 to {MAX_MEMBERS} members, each with a name of {MAX_NAME} characters")
    return {name: _parse_member(value[name]) for name in names}


def _parse_member(value: Any) -> Aliases:
    """Parse a member of a complex subject. One that is no identifier names nobody: it may be an extension."""
    if not isinstance(value, dict):
        return (SubjectId(None),)
    name = _format_name(value)
    if name == _COMPLEX:
        raise ValueError("a complex subject is inside another")
    return _parse_aliases(value, name)


def _parse_aliases(value: Mapping[str, Any], name: str) -> Aliases:
    if name != _ALIASES:
        return (_parse_id(value, name),)
    identifiers = value.get("identifiers")
    if not isinstance(identifiers, list) or not 0 < len(identifiers) <= MAX_ALIASES:
        raise ValueError(f"`aliases` has no list of 1 to {MAX_ALIASES} `identifiers`")
    parsed: list[SubjectId] = []
    for identifier in identifiers:
        inner = _format_name(identifier) if isinstance(identifier, dict) else ""
        if not inner or inner in (_ALIASES, _COMPLEX):
            raise ValueError("`aliases` has an identifier that is not a simple one")  # RFC 9493 section 3.2.8
        parsed.append(_parse_id(identifier, inner))
    return tuple(dict.fromkeys(parsed))


def _parse_id(value: Mapping[str, Any], name: str) -> SubjectId:
    if not name:
        raise ValueError("the subject has no `format`")
    try:
        kind = IdFormat(name)
    except ValueError:
        return SubjectId(None)
    issuer, member = _MEMBERS[kind]
    return SubjectId(kind, _text(value, issuer) if issuer else "", _text(value, member))


def _text(value: Mapping[str, Any], member: str) -> str:
    text = value.get(member)
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"the subject's `{member}` is not a string of 1 to {MAX_TEXT} characters")
    return text
