"""How names of callers are compared: the peer's principal in its several forms, and the token's issuer and subject.

The forms are Istio's (`pilot/pkg/security/authz/model`): regular expressions there, walked by hand here. Python's would
take more than linear time for `.*a.*b`, and compiling one a rule would cost more than the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from zta_authz.model.spiffe import SCHEME as SPIFFE
from zta_authz.policy.rules.matchers import Exact, IndexKey, Matcher, Prefix, Present, Suffix


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
    def text(self) -> str:
        """As the operator wrote it."""
        return self.namespace

    @property
    def key(self) -> IndexKey | None:
        """Found by the namespace, which is one segment."""
        return None if "/" in self.namespace else IndexKey("namespace", self.namespace)

    def matches(self, text: str) -> bool:
        """`/ns/<namespace>/` somewhere."""
        return f"/ns/{self.namespace}/" in text


@dataclass(frozen=True, slots=True)
class Namespaces:
    """`.*/ns/<value, each * any text>/.*`: a namespace with wildcards, walked by hand in time linear in the text."""

    value: str

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return self.value

    @property
    def key(self) -> IndexKey | None:
        """No lookup narrows it."""
        return None

    def matches(self, text: str) -> bool:
        """Each part after the one before: as any text may stand between, the first place of each is as good as any.

        A `.` of Istio's expression is no line feed.
        """
        if "\n" in text:
            return False
        at = 0
        for part in f"/ns/{self.value}/".split("*"):
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return True


def namespace_matcher(value: str) -> Matcher:
    """`.*/ns/<value, each * any text>/.*` on the peer's name."""
    return Namespaces(value) if "*" in value else Contains(value)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """`spiffe://.+/ns/NS/(.+/|)sa/SA(/.+)?` on the peer's name."""

    namespace: str
    account: str

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return f"{self.namespace}/{self.account}"

    @property
    def key(self) -> IndexKey | None:
        """Found by the account, which is the segment after `sa`."""
        return IndexKey("account", self.account)

    def matches(self, text: str) -> bool:
        """The regular expression, walked by hand: compiling one a rule would cost more than the rule."""
        if not text.startswith(SPIFFE):
            return False
        # What follows a later `/ns/NS/` also follows the first, with a whole segment before it at least.
        _, middle, rest = text[len(SPIFFE) + 1 :].partition(f"/ns/{self.namespace}/")
        return bool(middle) and self._account_in(rest)

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
    def text(self) -> str:
        """As the operator wrote it."""
        return self.before if self.after is None else f"{self.before}*{self.after}"

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
class RequestPrincipal:
    """A `requestPrincipals` value: one matcher for `iss`, one for `sub`; both claims must be strings and present."""

    issuer: Matcher
    subject: Matcher
    key: IndexKey | None
    text: str
    """As the operator wrote it."""

    def matches_pair(self, issuer: str, subject: str) -> bool:
        """Both."""
        return self.issuer.matches(issuer) and self.subject.matches(subject)


def request_principal_matcher(value: str) -> RequestPrincipal:
    """Split at the last `/`, as Istio generates it; after a leading `*` with a slash the subject is always exact."""
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
