"""Matchers for callers' names: the forms of the peer's principal, and the token's issuer and subject.

The forms are Istio's (`pilot/pkg/security/authz/model`). Istio uses regular expressions; this module compares by hand,
because Python's `re` takes more than linear time for `.*a.*b`, and compiling a pattern costs more than the whole rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from zta_authz.model.spiffe import SCHEME as SPIFFE
from zta_authz.policy.rules.matchers import Exact, IndexKey, Matcher, Prefix, Present, Suffix


def principal_matcher(value: str) -> Matcher:
    """The generic form on `spiffe://` + value; `*` matches any non-empty name of the peer."""
    if value == "*":
        return Present()
    if value.startswith("*"):
        return Suffix(value[1:], SPIFFE)
    if value.endswith("*"):
        return Prefix(SPIFFE + value[:-1])
    return Exact(SPIFFE + value)


@dataclass(frozen=True, slots=True)
class NamespaceMatcher:
    """A namespace without wildcard: `.*/ns/<namespace>/.*` on the peer's name."""

    namespace: str

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return self.namespace

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the namespace, if it is one segment."""
        return None if "/" in self.namespace else IndexKey("namespace", self.namespace)

    def matches(self, text: str) -> bool:
        """Whether `text` contains `/ns/<namespace>/`."""
        return f"/ns/{self.namespace}/" in text


@dataclass(frozen=True, slots=True)
class NamespacePattern:
    """A namespace with wildcards: `.*/ns/<value, each * any text>/.*`, compared in time linear in the text."""

    value: str

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return self.value

    @property
    def key(self) -> IndexKey | None:
        """None: only trying helps."""
        return None

    def matches(self, text: str) -> bool:
        """Find each part after the one before. Any text may stand between, so the first position is always enough.

        A `.` in Istio's expression does not match a line feed.
        """
        if "\n" in text:
            return False
        at = 0
        for part in f"/ns/{self.value}/".split("*"):
            index = text.find(part, at)
            if index < 0:
                return False
            at = index + len(part)
        return True


def namespace_matcher(value: str) -> Matcher:
    """The matcher for `.*/ns/<value, each * any text>/.*` on the peer's name."""
    return NamespacePattern(value) if "*" in value else NamespaceMatcher(value)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """`spiffe://.+/ns/NS/(.+/|)sa/SA(/.+)?` on the peer's name."""

    namespace: str
    account: str

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return f"{self.namespace}/{self.account}"

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the account, the segment after `sa`."""
        return IndexKey("account", self.account)

    def matches(self, text: str) -> bool:
        """Whether the regular expression above matches `text`."""
        if not text.startswith(SPIFFE):
            return False
        # Whatever follows a later `/ns/NS/` also follows the first one, at least one whole segment later.
        _, middle, rest = text[len(SPIFFE) + 1 :].partition(f"/ns/{self.namespace}/")
        return bool(middle) and self._account_in(rest)

    def _account_in(self, rest: str) -> bool:
        segments = f"sa/{self.account}"
        at = rest.find(segments)
        while at >= 0:
            end = at + len(segments)
            begins = at == 0 or (at >= 2 and rest[at - 1] == "/")
            ends = end == len(rest) or (rest[end] == "/" and end + 1 < len(rest))
            if begins and ends:
                return True
            at = rest.find(segments, at + 1)
        return False


@dataclass(frozen=True, slots=True)
class InTrustDomain:
    """`spiffe://<before><any but />*<after>/…`. Without a wildcard, `before` is the whole name and `after` is None."""

    before: str
    after: str | None = None

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return self.before if self.after is None else f"{self.before}*{self.after}"

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the start of the ID, if the name has no wildcard."""
        return IndexKey("prefix", f"{SPIFFE}{self.before}/") if self.after is None else None

    def matches(self, text: str) -> bool:
        """Compare the part between `spiffe://` and the next `/`, which is required."""
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
    """The matcher for Istio's `trustDomains`: `*` any SPIFFE ID, one wildcard within the name, else exact.

    Raises:
        ValueError: with a message for the operator.
    """
    if value == "*":
        return Prefix(SPIFFE)
    if "/" in value:
        raise ValueError("a trust domain has no `/`")
    parts = value.split("*")
    if len(parts) > 2:
        raise ValueError("a trust domain has at most one `*`")
    return InTrustDomain(value) if len(parts) == 1 else InTrustDomain(parts[0], parts[1])


@dataclass(frozen=True, slots=True)
class RequestPrincipal:
    """A `requestPrincipals` value: a matcher each for `iss` and `sub`. Both claims must be present and strings."""

    issuer: Matcher
    subject: Matcher
    key: IndexKey | None
    text: str
    """The value as the operator wrote it."""

    def matches_pair(self, issuer: str, subject: str) -> bool:
        """Whether both match."""
        return self.issuer.matches(issuer) and self.subject.matches(subject)


def request_principal_matcher(value: str) -> RequestPrincipal:
    """Split `value` at the last `/`, as Istio does; after a leading `*` with a slash the subject is always exact."""
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return RequestPrincipal(Present(), Present(), None, value)
    if value.startswith("*"):
        if not slash:
            return RequestPrincipal(Present(), Suffix(value[1:]), IndexKey("suffix", value[1:]), value)
        first: Matcher = Present() if issuer == "*" else Suffix(issuer[1:])
        return RequestPrincipal(first, Exact(subject), IndexKey("suffix", value[1:]), value)
    if value.endswith("*"):
        if not slash:
            return RequestPrincipal(Prefix(value[:-1]), Present(), IndexKey("prefix", value[:-1]), value)
        last: Matcher = Present() if subject == "*" else Prefix(subject[:-1])
        return RequestPrincipal(Exact(issuer), last, IndexKey("prefix", value[:-1]), value)
    if not slash:
        return RequestPrincipal(Exact(value), Exact(""), IndexKey("exact", f"{value}/"), value)
    return RequestPrincipal(Exact(issuer), Exact(subject), IndexKey("exact", value), value)
