"""`require.authentication`: how strongly, by which methods and how recently the user logged in.

The verified token says so by `acr`, `amr` and `auth_time` (OpenID Connect Core, section 2; RFC 9068, section 2.2.1;
RFC 8176). `auth_time` is compared and never `iat`, because a refreshed token has a new `iat` for the same login. A
claim that is missing or has another type never satisfies the rule. Challenges ask for such a login (RFC 9470).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.spiffe import SCHEME
from zta_authz.policy.yaml.nodes import Scalar
from zta_authz.policy.yaml.values import whole_number, whole_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.model.documents import IssuerPolicy
    from zta_authz.model.identity import Token
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

NO_LEVELS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType({})
_NO_LEVEL: Final[Mapping[str, int]] = MappingProxyType({})
SKEW_SECONDS: Final = 60.0
"""An `auth_time` that is further in the future satisfies nothing."""
MAX_ACR_VALUES: Final = 16
MAX_LEVEL: Final = 100
LONGEST_LOGIN_AGE: Final = 366 * 86400.0
ACR: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")  # fits into a quoted, space-separated list (RFC 9470)
_FIELDS: Final = ("acr", "acrAtLeast", "amr", "maxAge", "login")
_STEP_UP_FIELDS: Final = ("acr", "maxAge", "login")
MAX_LOGIN: Final = 2048


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """What a challenge asks the client to log in with.

    `acr` None accepts any; `max_age` is in seconds, None for any age. `login` is where browsers are sent, "" for
    nowhere. After such a login the user has authenticated with several factors if `several_factors`.
    """

    acr: tuple[str, ...] | None = None
    max_age: float | None = None
    login: str = ""
    several_factors: bool = False

    def combine(self, other: LoginRequest) -> LoginRequest:
        """What satisfies both: `acr` becomes empty if no value does."""
        if self.acr is None or other.acr is None:
            acr = other.acr if self.acr is None else self.acr
        else:
            acr = tuple(value for value in self.acr if value in other.acr)
        ages = [age for age in (self.max_age, other.max_age) if age is not None]
        several = self.several_factors or other.several_factors
        return LoginRequest(acr, min(ages, default=None), self.login or other.login, several)


def _no_levels() -> Mapping[str, Mapping[str, int]]:
    return NO_LEVELS


@dataclass(frozen=True, slots=True)
class AuthenticationClause:
    """The verified token's login satisfies every requirement: one of `acr`, level `at_least`, one of `amr`, `max_age`.

    () and None ask for nothing. `levels` are those of every issuer; the token's issuer selects.
    """

    acr: tuple[str, ...] = ()
    at_least: int | None = None
    amr: tuple[str, ...] = ()
    max_age: float | None = None
    login: str = ""
    levels: Mapping[str, Mapping[str, int]] = field(default_factory=_no_levels, repr=False, compare=False)
    negated: bool = False
    label: str = "require.authentication"
    cost: int = 2

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the login is strong and recent enough; false without a token."""
        del deny
        token = inputs.identity.token
        if token is None:
            return False
        claims = token.claims
        return (
            self._accepts_acr(token.issuer, claims.get("acr"))
            and self.accepts_methods(claims)
            and (self.max_age is None or _is_recent(claims.get("auth_time"), self.max_age, inputs.now))
        )

    def _accepts_acr(self, issuer: str, acr: Any) -> bool:
        if not self.acr and self.at_least is None:
            return True
        if not isinstance(acr, str) or (self.acr and acr not in self.acr):
            return False
        return self.at_least is None or self.levels.get(issuer, _NO_LEVEL).get(acr, -1) >= self.at_least

    def accepts_methods(self, claims: Mapping[str, Any]) -> bool:
        """Whether `amr` has one of the methods. No challenge can ask for one."""
        methods = claims.get("amr")
        return not self.amr or (isinstance(methods, list | tuple) and any(method in methods for method in self.amr))

    def login_request(self, token: Token) -> LoginRequest | None:
        """The login that would satisfy the clause; None if no login that a challenge can ask for would.

        The weakest sufficient `acr` comes first, because the values are in order of preference (RFC 9470, section 3).
        """
        if token.issuer.startswith(SCHEME) or not self.accepts_methods(token.claims):
            return None  # the holder of a JWT-SVID is a workload, which doesn't log in
        acr: tuple[str, ...] | None = self.acr or None
        if self.at_least is not None:
            levels = self.levels.get(token.issuer, _NO_LEVEL)
            names = sorted(levels, key=lambda name: (levels[name], name)) if acr is None else acr
            acr = tuple(name for name in names if levels.get(name, -1) >= self.at_least)
        return None if acr == () else LoginRequest(acr, self.max_age, self.login)

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index has no lookup for a login."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """The login that the token describes."""
        token = inputs.identity.token
        if token is None:
            return "no verified token"
        claims, seen = token.claims, []
        if self.acr or self.at_least is not None:
            seen.append(_shown(claims, "acr") + self._level_text(token))
        if self.amr:
            seen.append(_shown(claims, "amr"))
        if self.max_age is not None:
            seen.append(_age_text(claims.get("auth_time"), inputs.now))
        return ", ".join(seen)

    def _level_text(self, token: Token) -> str:
        if self.at_least is None:
            return ""
        acr, levels = token.claims.get("acr"), self.levels.get(token.issuer)
        if levels is None:
            return " (no IssuerPolicy gives levels for this issuer)"
        level = levels.get(acr) if isinstance(acr, str) else None
        return " (no level)" if level is None else f" (level {level})"

    @property
    def expected(self) -> str:
        """The requirements."""
        parts = []
        if self.acr:
            parts.append("acr " + " or ".join(f"`{value}`" for value in self.acr))
        if self.at_least is not None:
            parts.append(f"acr of level {self.at_least} or more")
        if self.amr:
            parts.append("amr " + " or ".join(f"`{value}`" for value in self.amr))
        if self.max_age is not None:
            parts.append(f"auth_time at most `{self.max_age:g} s` ago")
        return ", ".join(parts)


def _is_recent(auth_time: Any, max_age: float, now: float) -> bool:
    """Whether `auth_time` is a whole number from `now - max_age` to `now` and a small skew. No sum can overflow."""
    return type(auth_time) is int and now - max_age <= auth_time <= now + SKEW_SECONDS


def _shown(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if isinstance(value, list | tuple):
        return f"{name} " + ", ".join(f"`{str(item)[:40]}`" for item in value[:5])
    return f"no `{name}`" if value is None else f"{name} `{str(value)[:80]}`"


def _age_text(auth_time: Any, now: float) -> str:
    if auth_time is None:
        return "no `auth_time`"
    if type(auth_time) is not int:
        return "an `auth_time` that is not a whole number"
    if auth_time > now + SKEW_SECONDS:
        return "an `auth_time` in the future"
    return f"auth_time `{now - max(auth_time, 0):.0f} s` ago"


def compile_acr_levels(policies: Iterable[IssuerPolicy]) -> dict[str, dict[str, int]]:
    """The level of each `acr` by issuer.

    Of several policies with levels for one issuer, only values in all of them count, each with its lowest level.
    """
    levels: dict[str, dict[str, int]] = {}
    for policy in policies:
        if policy.acr_levels:
            own, before = dict(policy.acr_levels), levels.get(policy.issuer)
            if before is not None:
                own = {name: min(level, before[name]) for name, level in own.items() if name in before}
            levels[policy.issuer] = own
    return levels


def read_acr_levels(reader: Reader, node: Node) -> tuple[tuple[str, int], ...]:
    """Read `acrLevels` of an IssuerPolicy to pairs of `acr` and level; errors become faults."""
    mapping = reader.mapping(node, "acrLevels", getattr(node, "entries", ()))
    if mapping is None:
        return ()
    if not mapping.entries:
        reader.fault(mapping, "`acrLevels` is empty", "write `{phr: 2, phrh: 3}`, or remove it")
    for name, (key, _) in mapping.entries.items():
        if key.kind != "string" or not ACR.fullmatch(name):
            hint = "write 1 to 128 printable ASCII characters without blanks and quotes; a number in quotes"
            reader.fault(key, f"`{name[:80]}` in `acrLevels` is not an `acr` that a challenge can ask for", hint)
    return tuple((name, whole_number(reader, mapping, name, 0, 0, MAX_LEVEL)) for name in mapping.entries)


def read_require_authentication(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require.authentication` to its clause; errors become faults."""
    name = "require.authentication"
    mapping = reader.mapping(node, name, _FIELDS)
    if mapping is None:
        return ()
    if not any(mapping.get(field) is not None for field in ("acr", "acrAtLeast", "amr", "maxAge")):
        reader.fault(mapping, f"`{name}` asks for nothing", "add `acr`, `acrAtLeast`, `amr` or `maxAge`")
    at_least = mapping.get("acrAtLeast")
    login = _read_login(reader, mapping, name, _FIELDS)
    clause = AuthenticationClause(
        login.acr or (),
        None if at_least is None else whole_number(reader, mapping, "acrAtLeast", MAX_LEVEL, 0, MAX_LEVEL),
        _read_values(reader, mapping.get("amr"), "amr"),
        login.max_age,
        login.login,
    )
    return (clause,)


def read_step_up(reader: Reader, node: Node) -> LoginRequest | None:
    """Read `stepUp` of `require.trust`: the login that counts as one with several factors."""
    mapping = reader.mapping(node, "stepUp", _STEP_UP_FIELDS)
    if mapping is None:
        return None
    if mapping.get("acr") is None and mapping.get("maxAge") is None:
        reader.fault(mapping, "`stepUp` asks for no login", "add `acr: [phr]` or `maxAge: 5m`")
    return replace(_read_login(reader, mapping, "stepUp", _STEP_UP_FIELDS), several_factors=True)


def _read_login(reader: Reader, node: Node, name: str, fields: Iterable[str]) -> LoginRequest:
    mapping = reader.mapping(node, name, tuple(fields))
    if mapping is None:
        return LoginRequest()
    acr, age, login = mapping.get("acr"), mapping.get("maxAge"), mapping.get("login")
    max_age = None if age is None else whole_seconds(reader, mapping, "maxAge", 1, LONGEST_LOGIN_AGE)
    url = "" if login is None else _read_url(reader, login)
    return LoginRequest(_read_values(reader, acr, "acr") or None, max_age, url)


def _read_values(reader: Reader, node: Node | None, name: str) -> tuple[str, ...]:
    values = [] if node is None else reader.strings(node, name)
    if node is not None and len(values) > MAX_ACR_VALUES:
        reader.fault(node, f"{len(values)} values in `{name}`, more than {MAX_ACR_VALUES}", "list fewer")
    for value in values:
        if not ACR.fullmatch(value.value):
            hint = "write 1 to 128 printable ASCII characters without blanks and quotes, each value on its own"
            reader.fault(value, f"`{value.value[:80]}` is not a value of `{name}`", hint)
    return tuple(dict.fromkeys(value.value for value in values))


def _read_url(reader: Reader, node: Node) -> str:
    text = reader.string(node, "login") or ""
    plain = text.isascii() and text.isprintable() and " " not in text and len(text) <= MAX_LOGIN
    if isinstance(node, Scalar) and text and not (plain and _is_location(text)):
        reader.fault(node, "`login` is not a URL or a path", "write `https://…` or `/…`")
    address, _, query = text.partition("?")
    if "{" in address or "{" in query.replace("{path}", ""):
        hint = "write `{path}` as a value of the query, like `/login?return_to={path}`"
        reader.fault(node, "`login` has a `{` that is not part of `{path}` in its query", hint)
    return text


def _is_location(text: str) -> bool:
    return text.startswith(("https://", "http://", "/")) and not text.startswith(("//", "/\\"))
