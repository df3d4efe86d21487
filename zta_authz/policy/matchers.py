"""How one value of a rule is compared with one value of a request.

Istio's string forms (security.istio.io AuthorizationPolicy, "value matching"), tested in this order, case-sensitive:
`*` any non-empty text, `*x` suffix, `x*` prefix, else exact. Other `*` are literal. Path templates follow Envoy's
`uri_template`: `{*}` is one non-empty run of path characters, `{**}` any run of them and `/`.

Matchers are immutable and interned by the compiler, so that equal ones are one object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

SPIFFE: Final = "spiffe://"
# Envoy 1.40 takes `*` and `=` too, beyond the characters its documentation lists (measured).
_TEMPLATE_SEGMENT = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;:@=]+")
_TEMPLATE_REST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;:@=/]*")
_TEMPLATE_LITERAL = re.compile(r"[A-Za-z0-9\-._~%!$&'()+,;:@=]*")


@dataclass(frozen=True, slots=True)
class IndexKey:
    """How a matcher can be found by looking up instead of trying: `form` names the lookup, `text` the entry.

    Forms: `exact`, `prefix`, `suffix` on the whole value; `template` with the template's text.
    """

    form: str
    text: str


class Matcher(Protocol):
    """Compares one text. `key` is None where only trying helps."""

    @property
    def key(self) -> IndexKey | None:
        """The lookup that finds every text this matcher can match."""
        ...

    def matches(self, text: str) -> bool:
        """True where the text is meant."""
        ...


@dataclass(frozen=True, slots=True)
class Exact:
    """Equal to `value`."""

    value: str

    @property
    def key(self) -> IndexKey | None:
        """Found by its value."""
        return IndexKey("exact", self.value)

    def matches(self, text: str) -> bool:
        """Equality."""
        return text == self.value


@dataclass(frozen=True, slots=True)
class Prefix:
    """Starts with `value`."""

    value: str

    @property
    def key(self) -> IndexKey | None:
        """Found by its prefix."""
        return IndexKey("prefix", self.value)

    def matches(self, text: str) -> bool:
        """Starts with."""
        return text.startswith(self.value)


@dataclass(frozen=True, slots=True)
class Suffix:
    """Ends with `value`; `after` must come before it without overlap (`spiffe://` for principals)."""

    value: str
    after: str = ""

    @property
    def key(self) -> IndexKey | None:
        """Found by its suffix."""
        return IndexKey("suffix", self.value)

    def matches(self, text: str) -> bool:
        """Ends with, and starts with `after` before that."""
        return (
            text.endswith(self.value)
            and text.startswith(self.after)
            and len(text) >= len(self.value) + len(self.after)
        )


@dataclass(frozen=True, slots=True)
class Present:
    """Any text; the empty one only if `even_empty` (headers, hosts)."""

    even_empty: bool = False

    @property
    def key(self) -> IndexKey | None:
        """Nearly everything is present: no lookup narrows it."""
        return None

    def matches(self, text: str) -> bool:
        """Not empty, or empty where that counts."""
        return bool(text) or self.even_empty


@dataclass(frozen=True, slots=True)
class Never:
    """Matches nothing: a value that Envoy accepts but that cannot occur."""

    @property
    def key(self) -> IndexKey | None:
        """Found by nothing that occurs."""
        return IndexKey("exact", "\0never")

    def matches(self, text: str) -> bool:
        """False."""
        del text
        return False


def string_matcher(value: str) -> Matcher:
    """Istio's generic string form; `value` is not empty."""
    if value == "*":
        return Present()
    if value.startswith("*"):
        return Suffix(value[1:])
    if value.endswith("*"):
        return Prefix(value[:-1])
    return Exact(value)


def header_matcher(value: str) -> Matcher:
    """The generic form, but `*` is met by an empty value too."""
    return Present(even_empty=True) if value == "*" else string_matcher(value)


def host_matcher(value: str) -> Matcher:
    """The generic form without regard to case; texts are given in lower case. `*` means present."""
    return header_matcher(value.lower())


def principal_matcher(value: str) -> Matcher:
    """The generic form on `spiffe://` + value; `*` is any non-empty name of the peer."""
    if value == "*":
        return Present()
    if value.startswith("*"):
        return Suffix(value[1:], SPIFFE)
    if value.endswith("*"):
        return Prefix(SPIFFE + value[:-1])
    return Exact(SPIFFE + value)


@dataclass(frozen=True, slots=True)
class Contains:
    """`.*<middle>.*`: a namespace without wildcard, as the text between `/ns/` and `/`."""

    namespace: str

    @property
    def key(self) -> IndexKey | None:
        """Found by the namespace, which is one segment."""
        return None if "/" in self.namespace else IndexKey("namespace", self.namespace)

    def matches(self, text: str) -> bool:
        """`/ns/<namespace>/` somewhere."""
        return f"/ns/{self.namespace}/" in text


class Pattern:
    """A regular expression on the whole text, for the few forms that need one; no lookup."""

    __slots__ = ("_match", "pattern")
    key = None

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._match: Callable[[str], object] = re.compile(pattern).fullmatch

    def matches(self, text: str) -> bool:
        """Full match."""
        return self._match(text) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)


def namespace_matcher(value: str) -> Matcher:
    """`.*/ns/<value, each * any text>/.*` on the peer's name."""
    if "*" not in value:
        return Contains(value)
    middle = ".*".join(re.escape(part) for part in value.split("*"))
    return Pattern(f".*/ns/{middle}/.*")


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """`spiffe://.+/ns/NS/(.+/|)sa/SA(/.+)?` on the peer's name."""

    namespace: str
    account: str

    @property
    def key(self) -> IndexKey | None:
        """Found by the account, which is the segment after `sa`."""
        return IndexKey("account", self.account)

    def matches(self, text: str) -> bool:
        """The regular expression, walked by hand: compiling one a rule would cost more than the rule."""
        if not text.startswith(SPIFFE):
            return False
        middle = f"/ns/{self.namespace}/"
        start = text.find(middle, len(SPIFFE) + 1)
        while start >= 0:
            if self._account_in(text[start + len(middle) :]):
                return True
            start = text.find(middle, start + 1)
        return False

    def _account_in(self, rest: str) -> bool:
        wanted = f"sa/{self.account}"
        at = rest.find(wanted)
        while at >= 0:
            end = at + len(wanted)
            begins = at == 0 or (at >= 2 and rest[at - 1] == "/")
            ends = end == len(rest) or (rest[end] == "/" and end + 1 < len(rest))
            if begins and ends:
                return True
            at = rest.find(wanted, at + 1)
        return False


@dataclass(frozen=True, slots=True)
class InTrustDomain:
    """`spiffe://<before><any but />*<after>/…`; without wildcard `after` is None and `before` the whole name."""

    before: str
    after: str | None = None

    @property
    def key(self) -> IndexKey | None:
        """Found by the start of the ID where there is no wildcard."""
        return IndexKey("prefix", f"{SPIFFE}{self.before}/") if self.after is None else None

    def matches(self, text: str) -> bool:
        """Compares the part between `spiffe://` and the next `/`, which must be there."""
        if not text.startswith(SPIFFE):
            return False
        name, slash, _ = text[len(SPIFFE) :].partition("/")
        if not slash:
            return False
        if self.after is None:
            return name == self.before
        return (
            name.startswith(self.before)
            and name.endswith(self.after)
            and len(name) >= len(self.before) + len(self.after)
        )


def trust_domain_matcher(value: str) -> Matcher:
    """Istio's `trustDomains`: `*` any SPIFFE ID, one wildcard within the name, else exact. Raises ValueError."""
    if value == "*":
        return Prefix(SPIFFE)
    if "/" in value:
        raise ValueError("a trust domain has no `/`")
    parts = value.split("*")
    if len(parts) > 2:
        raise ValueError("a trust domain takes one `*` at most")
    return InTrustDomain(value) if len(parts) == 1 else InTrustDomain(parts[0], parts[1])


@dataclass(frozen=True, slots=True)
class Template:
    """A path template; `head` are the segments before `{**}` (None stands for `{*}`), `tail` the literal text after it.

    `tail` is None where there is no `{**}`. The first segment is "" because a path starts with `/`.
    """

    text: str
    head: tuple[str | None, ...]
    tail: str | None

    @property
    def key(self) -> IndexKey | None:
        """Found by walking the path's segments."""
        return IndexKey("template", self.text)

    def matches(self, text: str) -> bool:
        """Envoy's `uri_template` on the path without its query."""
        count = len(self.head)
        segments = text.split("/", count) if self.tail is not None else text.split("/")
        if len(segments) != (count if self.tail is None else count + 1):
            return False
        for wanted, found in zip(self.head, segments, strict=False):
            if found != wanted and (wanted is not None or _TEMPLATE_SEGMENT.fullmatch(found) is None):
                return False
        return self.tail is None or self._rest_matches(segments[count])

    def _rest_matches(self, rest: str) -> bool:
        tail = self.tail or ""
        if not rest.endswith(tail):
            return False
        return _TEMPLATE_REST.fullmatch(rest, 0, len(rest) - len(tail)) is not None


def path_matcher(value: str) -> Matcher:
    """A path: the generic form, or a template where `{*}` or `{**}` is in it. Raises ValueError saying what is wrong."""
    if "{*}" in value or "{**}" in value:
        return parse_template(value)
    return string_matcher(value)


def parse_template(value: str) -> Template:
    """The template in `value`, checked as Istio does. Raises ValueError saying what is wrong."""
    if not value.startswith("/"):
        raise ValueError("a path template starts with `/`")
    head: list[str | None] = []
    tail: list[str] | None = None
    for segment in value.split("/"):
        operator = segment in ("{*}", "{**}")
        if not operator and ("{" in segment or "}" in segment):
            raise ValueError(f"`{segment}`: `{{*}}` and `{{**}}` stand for a whole path segment")
        if not operator and not _TEMPLATE_LITERAL.fullmatch(segment):
            raise ValueError(f"`{segment}` has characters that a path template can't hold")
        if tail is not None:
            if operator:
                raise ValueError("`{**}` is the last operator of a path template")
            tail.append(segment)
        elif segment == "{**}":
            tail = []
        else:
            head.append(None if operator else segment)
    if tail is None:
        return Template(value, tuple(head), None)
    return Template(value, tuple(head), "".join(f"/{segment}" for segment in tail))


@dataclass(frozen=True, slots=True)
class RequestPrincipal:
    """A `requestPrincipals` value: one matcher for `iss`, one for `sub`; both claims must be strings and present."""

    issuer: Matcher
    subject: Matcher
    key: IndexKey | None

    def matches_pair(self, issuer: str, subject: str) -> bool:
        """Both."""
        return self.issuer.matches(issuer) and self.subject.matches(subject)


def request_principal_matcher(value: str) -> RequestPrincipal:
    """Split at the last `/`, as Istio generates it; after a leading `*` with a slash the subject is always exact."""
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return RequestPrincipal(Present(), Present(), None)
    if value.startswith("*"):
        if not slash:
            return RequestPrincipal(Present(), Suffix(value[1:]), IndexKey("suffix", value[1:]))
        first: Matcher = Present() if issuer == "*" else Suffix(issuer[1:])
        return RequestPrincipal(first, Exact(subject), IndexKey("suffix", value[1:]))
    if value.endswith("*"):
        if not slash:
            return RequestPrincipal(Prefix(value[:-1]), Present(), IndexKey("prefix", value[:-1]))
        last: Matcher = Present() if subject == "*" else Prefix(subject[:-1])
        return RequestPrincipal(Exact(issuer), last, IndexKey("prefix", value[:-1]))
    if not slash:
        return RequestPrincipal(Exact(value), Exact(""), IndexKey("exact", f"{value}/"))
    return RequestPrincipal(Exact(issuer), Exact(subject), IndexKey("exact", value))


def parse_network(value: str) -> IPv4Network | IPv6Network:
    """An address or CIDR block; host bits are cut off, as Envoy does. Raises ValueError saying what is wrong."""
    if "%" in value:
        raise ValueError("an address here has no zone")
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("not an IP address or CIDR block") from None


def parse_port(value: str) -> int:
    """A port in decimal. Raises ValueError saying what is wrong."""
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise ValueError("a port is a decimal number from 0 to 65535")
    return int(value)
