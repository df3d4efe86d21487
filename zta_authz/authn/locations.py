"""Find the tokens in a request's headers, query parameters and cookies.

With strict semantics, a bearer token follows the scheme `Bearer`, in any case, at the start of the value (RFC 6750,
RFC 9110 section 11.1). A location with two values is refused, because the upstream may read the other one.
With Envoy's semantics, the prefix may be anywhere in the value and is case-sensitive, and characters between it and the
next one that a token may contain are skipped. Each of a header's values may contain a token; of several query
parameters or cookies with the same name, the first is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.authn.encoding import percent_decode
from zta_authz.errors import Reason, Refused
from zta_authz.model.percent import has_stray_percent, utf8_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.model.documents import JwtRule
    from zta_authz.model.request import Headers, RequestAttributes

DEFAULT_HEADER: Final = "authorization"
DEFAULT_PREFIX: Final = "Bearer "
DEFAULT_PARAM: Final = "access_token"
MAX_TOKENS: Final = 8
"""The maximum number of tokens in a request with strict semantics."""
MAX_QUERY_PARAMS: Final = 1000
"""The maximum number of query parameters read. With strict semantics a longer query is refused."""
MAX_COOKIES: Final = 1000
"""The maximum number of cookies, in all lines together, if tokens may be in cookies and semantics are strict."""
_BEARER = "bearer"
_DPOP = "dpop"
_BLANKS = " \t"
_TOKEN_CHARACTER = re.compile(r"[A-Za-z0-9_.-]")


class Kind(IntEnum):
    """The kind of a token location. Of several tokens, the payload of the first location in this order is used."""

    HEADER = 0
    PARAM = 1
    COOKIE = 2


@dataclass(frozen=True, slots=True, eq=False)
class TokenLocation:
    """One location of a token. Equal locations of several rules are one object, compared by identity."""

    kind: Kind
    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name}"


class TokenLocations:
    """All locations of all rules, without duplicates."""

    def __init__(self) -> None:
        self._locations: dict[tuple[Kind, str, str], TokenLocation] = {}

    def of(self, rule: JwtRule) -> tuple[TokenLocation, ...]:
        """The rule's locations in order of precedence; the two defaults if it names none."""
        headers = sorted({(header.name.lower(), header.prefix) for header in rule.from_headers}, key="".join)
        params = sorted(set(rule.from_params))
        cookies = sorted(set(rule.from_cookies))
        if not (headers or params or cookies):
            headers, params = [(DEFAULT_HEADER, DEFAULT_PREFIX)], [DEFAULT_PARAM]
        return (
            *(self._location(Kind.HEADER, name, prefix) for name, prefix in headers),
            *(self._location(Kind.PARAM, name) for name in params),
            *(self._location(Kind.COOKIE, name) for name in cookies),
        )

    @property
    def bearer(self) -> TokenLocation:
        """The Authorization header, which carries bearer tokens."""
        return self._location(Kind.HEADER, DEFAULT_HEADER, DEFAULT_PREFIX)

    def _location(self, kind: Kind, name: str, prefix: str = "") -> TokenLocation:
        return self._locations.setdefault((kind, name, prefix), TokenLocation(kind, name, prefix))


class RawToken(msgspec.Struct, frozen=True):
    """The text of a token at its location. `dpop`: its scheme requires a proof of possession (RFC 9449)."""

    location: TokenLocation
    text: str
    dpop: bool = False


RawTokens = list[RawToken]


class TokenFinder:
    """Finds the tokens at a set of locations."""

    __slots__ = ("_cookies", "_headers", "_longest_name", "_params", "_strict")

    def __init__(self, locations: Iterable[TokenLocation], *, strict: bool) -> None:
        unique = list(dict.fromkeys(locations))
        self._headers = [
            (location, _reader(location, strict=strict)) for location in unique if location.kind is Kind.HEADER
        ]
        self._params = {location.name: location for location in unique if location.kind is Kind.PARAM}
        self._longest_name = max((3 * len(utf8_bytes(name)) for name in self._params), default=0)
        self._cookies = {location.name: location for location in unique if location.kind is Kind.COOKIE}
        self._strict = strict

    def find(self, request: RequestAttributes) -> RawTokens:
        """Find the tokens and their locations. With strict semantics, raises `Refused` if a location has two values."""
        tokens: RawTokens = []
        headers = request.headers
        for location, read in self._headers:
            values = headers.all(location.name)
            if values:
                tokens += read(location, values)
        path = request.path
        if self._params and "?" in path and self._may_hold_params(path):
            self._find_params(path, tokens)
        if self._cookies and "cookie" in headers:
            self._find_cookies(headers, tokens)
        if self._strict and len(tokens) > MAX_TOKENS:
            raise Refused(Reason.TOKEN_TOO_MANY, f"{len(tokens)} tokens, more than {MAX_TOKENS}")
        return tokens

    def _may_hold_params(self, path: str) -> bool:
        """Whether the query may contain a parameter of a rule, by a quick check that usually finds it can't."""
        for name in self._params:
            if name in path:
                return True
        return "%" in path or len(path) > MAX_QUERY_PARAMS

    def _find_params(self, path: str, tokens: RawTokens) -> None:
        query = path.partition("?")[2].partition("#")[0]
        fields = query.split("&", MAX_QUERY_PARAMS)
        if self._strict and len(fields) > MAX_QUERY_PARAMS:
            raise Refused(Reason.REQUEST_MALFORMED, f"more than {MAX_QUERY_PARAMS} query parameters")
        values: dict[TokenLocation, str] = {}
        for field in fields[:MAX_QUERY_PARAMS]:
            name, _, value = field.partition("=")
            location = self._params.get(
                self._decoded(name) if "%" in name and len(name) <= self._longest_name else name
            )
            if location is not None and self._strict and "%" in name:
                # Envoy removes parameters by their literal name, so this one would reach the upstream.
                raise Refused(Reason.TOKEN_MALFORMED, f"the parameter `{location.name}` is written with escapes")
            if location is not None:
                self._keep_first(location, self._decoded(value), values)
        tokens.extend(RawToken(location, values[location]) for location in self._params.values() if location in values)

    def _decoded(self, text: str) -> str:
        """Decode a query parameter's name or value. With strict semantics, text with a stray `%` is not decoded.

        No token and no parameter of a rule contains one, and decoding text with thousands of them is costly.
        """
        if self._strict and "%" in text and has_stray_percent(utf8_bytes(text)):
            return text
        return percent_decode(text)

    def _find_cookies(self, headers: Headers, tokens: RawTokens) -> None:
        values: dict[TokenLocation, str] = {}
        cookies_left = MAX_COOKIES
        for header in headers.all("cookie"):
            fields = header.split(";", cookies_left if self._strict else -1)
            cookies_left -= len(fields)
            if self._strict and cookies_left < 0:
                raise Refused(Reason.REQUEST_MALFORMED, f"more than {MAX_COOKIES} cookies")
            for field in fields:
                name, equals, value = field.partition("=")
                if self._strict:
                    name, value = name.strip(_BLANKS), _unquoted(value.strip(_BLANKS))
                else:  # Envoy ignores blanks after a token
                    name, value = name.lstrip(" "), _unquoted(value).rstrip(_BLANKS)
                location = self._cookies.get(name) if equals else None
                if location is not None:
                    self._keep_first(location, value, values)
        tokens.extend(RawToken(location, values[location]) for location in self._cookies.values() if location in values)

    def _keep_first(self, location: TokenLocation, value: str, values: dict[TokenLocation, str]) -> None:
        if location not in values:
            values[location] = value
        elif self._strict:
            raise Refused(Reason.TOKEN_TOO_MANY, f"{location.kind.name.lower()} `{location.name}` appears twice")


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _reader(location: TokenLocation, *, strict: bool) -> Callable[[TokenLocation, tuple[str, ...]], RawTokens]:
    """The reader of a header's values."""
    if not strict:
        return _envoy_headers
    return _by_scheme if location.prefix.strip(_BLANKS).lower() == _BEARER else _strict_header


def _strict_header(location: TokenLocation, values: tuple[str, ...]) -> RawTokens:
    if len(values) > 1:
        raise Refused(Reason.TOKEN_TOO_MANY, f"header `{location.name}` has {len(values)} values")
    value = values[0].strip(_BLANKS)
    prefix = location.prefix.strip(_BLANKS)
    if not value.startswith(prefix):
        return []
    return [RawToken(location, value[len(prefix) :].strip(_BLANKS))]


def _by_scheme(location: TokenLocation, values: tuple[str, ...]) -> RawTokens:
    """Read the token after `Bearer` or, in Authorization, after `DPoP`."""
    if len(values) > 1:
        raise Refused(Reason.TOKEN_TOO_MANY, f"header `{location.name}` has {len(values)} values")
    value = values[0].strip(_BLANKS)
    if value.startswith(DEFAULT_PREFIX):  # the usual spelling
        return [RawToken(location, value[len(DEFAULT_PREFIX) :].strip(" "))]
    text = _after_scheme(value, _BEARER)
    if text is not None:
        return [RawToken(location, text)]
    text = _after_scheme(value, _DPOP) if location.name == DEFAULT_HEADER else None
    return [] if text is None else [RawToken(location, text, dpop=True)]


def _after_scheme(value: str, scheme: str) -> str | None:
    length = len(scheme)
    if value[:length].lower() != scheme:
        return None
    rest = value[length:]
    if rest and (rest[0].isalnum() or rest[0] in "!#$%&'*+-.^_`|~"):
        return None  # another scheme, with a longer name (RFC 9110 section 5.6.2)
    return rest.strip(" ")  # a tab or nothing is a token too, which is refused as malformed


def _envoy_headers(location: TokenLocation, values: tuple[str, ...]) -> RawTokens:
    """Read the text after the prefix in each value that contains it; without a prefix, each value."""
    if not location.prefix:
        return [RawToken(location, value.rstrip(_BLANKS)) for value in values]
    return [
        RawToken(location, _envoy_token(value, at + len(location.prefix)))
        for value in values
        if (at := value.find(location.prefix)) >= 0
    ]


def _envoy_token(value: str, after: int) -> str:
    """The value from the first token character at or after `after`; the whole value if there is none."""
    match = _TOKEN_CHARACTER.search(value, after)
    return value[match.start() :].rstrip(_BLANKS) if match else value
