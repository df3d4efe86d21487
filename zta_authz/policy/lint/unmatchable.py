"""Find values of rules that no request has, and suggest what was probably meant.

A finding is certain if it is proved that no request that reaches the rules has such a value. Otherwise the value can
only match a request with its odd characters, such as `*` or `^`, which is hardly intended but possible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from zta_authz.model.percent import utf8_bytes
from zta_authz.model.spiffe import SCHEME, SpiffeId
from zta_authz.policy.lint.methods import several_methods, unknown_pseudo_header
from zta_authz.policy.rules.clauses import RequestPrincipalClause, TextClause
from zta_authz.policy.rules.dimensions import API_CLIENT, API_SCOPES, HOST, METHOD, PATH, PEER, SNI, ClaimDimension
from zta_authz.policy.rules.identity_matchers import InTrustDomain, NamespaceMatcher, NamespacePattern, ServiceAccount
from zta_authz.policy.rules.matchers import Exact, Prefix, Suffix, ascii_lower
from zta_authz.policy.rules.path_templates import Template, path_matcher
from zta_authz.policy.rules.require import BoundClause, MaxAgeClause
from zta_authz.policy.rules.require_authentication import AuthenticationClause

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from zta_authz.model.documents import Selector
    from zta_authz.policy.lint.fact_sources import FactSources
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.identity_matchers import RequestPrincipal
    from zta_authz.policy.rules.matchers import Matcher

_ENCODED: Final = re.compile(r"[^!-~]|[%?#]")
"""Characters that a path can't contain unencoded."""
_DOMAIN: Final = re.compile(r"[a-z0-9._-]*")
_ID_PATH: Final = re.compile(r"[A-Za-z0-9._/-]*")
_REGULAR: Final = re.compile(r"\A\^|\$\Z|\.[*+]|\\[dwsDWS.]|\[[^\]/]*-[^\]/]*\]|\([^()]*\|[^()]*\)|\[\^/\]")
_WHOLE_SEGMENT: Final = re.compile(r"\{\w+\}|:\w+|\*|\[\^/\][*+]|\\[wd][*+]|\.[*+]|\(\.[*+]\)|\[[\w-]+\][*+]|<\w+>")
_SPACED: Final = (("scope",), ("permission",))
_NOT_SPECIAL: Final = "a value is compared as text: `*` stands for any text only at its start or end"
_NO_REGEX: Final = "a value is compared as text, not as a regular expression"


@dataclass(frozen=True, slots=True)
class SuspiciousValue:
    """The reason why `value` of a clause matches nothing, or, if not `certain`, only its own odd characters."""

    label: str
    value: str
    reason: str
    hint: str
    certain: bool


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """The identities that one document lets callers prove: tokens of `issuers`, API keys of `clients` with `scopes`.

    `requires_token`: requests without one of its tokens are denied.
    """

    selector: Selector
    issuers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    requires_token: bool = False

    def covers(self, selector: Selector, root: str) -> bool:
        """Whether this document applies to every workload that a policy with `selector` applies to."""
        own = self.selector
        return own.namespace in (selector.namespace, root) and own.labels.items() <= selector.labels.items()

    def concerns(self, selector: Selector, root: str) -> bool:
        """Whether this document and a policy with `selector` may apply to a common workload."""
        own = self.selector
        if own.namespace != selector.namespace and root not in (own.namespace, selector.namespace):
            return False
        return all(selector.labels.get(key, value) == value for key, value in own.labels.items())


@dataclass(frozen=True)
class Reachability:
    """The requests that can reach a policy's rules: what is refused before, and which identities callers can prove.

    `refused_path` returns why a path is refused, "" if it is not; `refused_host` whether an authority is. `sources` and
    `facts` are None if the provable identities, and what gives facts, are unknown.
    """

    strict: bool
    refused_path: Callable[[str], str] = lambda _: ""
    refused_host: Callable[[str], bool] = lambda _: False
    sources: tuple[CredentialSource, ...] | None = None
    facts: FactSources | None = None

    @cached_property
    def issuers(self) -> frozenset[str]:
        """The issuers whose tokens are verified."""
        return frozenset(issuer for source in self.sources or () for issuer in source.issuers)

    @property
    def has_tokens(self) -> bool:
        """False only if no token can ever be verified."""
        return self.sources is None or bool(self.issuers)


def suspicious_values(clause: Clause, reach: Reachability, *, deny: bool) -> list[SuspiciousValue | None]:
    """A finding for each value of the clause, None if the value may match; [] for a clause without values."""
    if isinstance(clause, RequestPrincipalClause):
        return [_request_principal(clause.label, matcher, reach) for matcher in clause.matchers]
    if isinstance(clause, (BoundClause, MaxAgeClause, AuthenticationClause)):
        return [None if reach.has_tokens else _no_tokens(clause.label, clause.expected)]
    if not isinstance(clause, TextClause):
        return []
    wide = reach.strict and deny is not clause.negated
    return [_text(clause, matcher, reach, wide=wide) for matcher in clause.matchers]


def _text(clause: TextClause, matcher: Matcher, reach: Reachability, *, wide: bool) -> SuspiciousValue | None:
    dimension = clause.dimension
    finding: tuple[str, str, bool] | None = None
    if dimension is PATH:
        finding = _path(matcher, reach, wide=wide)
    elif dimension is HOST:
        finding = _host(matcher, reach)
    elif dimension is METHOD:
        finding = several_methods(matcher, strict=reach.strict)
    elif dimension is PEER:
        finding = _peer(matcher, strict=reach.strict)
    elif dimension is SNI:
        finding = _server_name(matcher)
    elif dimension in (API_CLIENT, API_SCOPES):
        finding = _api_key(matcher, reach, scopes=dimension is API_SCOPES)
    elif isinstance(dimension, ClaimDimension):
        if not reach.has_tokens:
            return _no_tokens(clause.label, matcher.text)
        finding = _claim(dimension, matcher)
    else:
        finding = unknown_pseudo_header(dimension)
    if finding is None and dimension is not PEER:
        finding = _literal(matcher)
    shown = matcher.text.removeprefix(SCHEME) if dimension is PEER else matcher.text
    return None if finding is None else SuspiciousValue(clause.label, shown, *finding)


def _no_tokens(label: str, value: str) -> SuspiciousValue:
    reason = "no RequestAuthentication applies to these workloads, so no token is ever verified"
    hint = "add a RequestAuthentication for them, or remove the field"
    return SuspiciousValue(label, value, reason, hint, certain=True)


def _value(matcher: Matcher) -> str | None:
    """The compared text, without a leading or trailing wildcard `*`; None for other forms."""
    return matcher.value if isinstance(matcher, (Exact, Prefix, Suffix)) else None


def _literal(matcher: Matcher) -> tuple[str, str, bool] | None:
    """Find `*` and regular expressions in a value that is compared as text."""
    value = _value(matcher)
    if value is None:
        return None
    if "*" in value:
        return _NOT_SPECIAL, "write several values, or a `condition` with `matches`", False
    if re.search(r"\A\^|\.[*+]", value):
        return _NO_REGEX, "write the values out, or a `condition` with `matches`", False
    return None


# --- paths ---


def _path(matcher: Matcher, reach: Reachability, *, wide: bool) -> tuple[str, str, bool] | None:
    value = matcher.text if isinstance(matcher, Template) else _value(matcher)
    if value is None:
        return None
    suggestion = suggested_path(matcher.text)
    refusal = _refusal(matcher, value, reach, wide=wide)
    if "?" in value or "#" in value:
        certain = not wide or bool(refusal) or bool(reach.refused_path(_encoded(value)))
        return "paths are compared without query and fragment", f"write `{re.split('[?#]', value)[0]}`", certain
    if refusal:
        hint = f"write `{suggestion}`" if suggestion else "write the normalised path"
        return f"requests for such a path are refused before any rule is evaluated: {refusal}", hint, True
    if isinstance(matcher, Template):
        return None
    if not isinstance(matcher, Suffix) and not value.startswith("/"):
        return "a path starts with `/`", f"write `{suggestion or '/' + matcher.text}`", False
    hint = (
        f"write `{suggestion}`" if suggestion else "`{*}` stands for one whole segment, `{**}` for the rest of a path"
    )
    if "*" in value:
        return _NOT_SPECIAL, hint, False
    if _REGULAR.search(value):
        return _NO_REGEX, hint, False
    if any(_WHOLE_SEGMENT.fullmatch(segment) for segment in value.split("/")):
        return "a value is compared as text; `{*}` stands for one segment", hint, False
    return None


def _refusal(matcher: Matcher, value: str, reach: Reachability, *, wide: bool) -> str:
    """The reason why every path that the matcher matches is refused, "" if that is not proved.

    One sample proves it for all paths: what is refused is within the value, not where it meets the text of `*`.
    """
    sample = value.replace("{**}", "x").replace("{*}", "x") if isinstance(matcher, Template) else value
    if isinstance(matcher, Suffix):
        sample = f"/x{sample}"
    elif isinstance(matcher, Prefix):
        if re.search(r"%[0-9A-Fa-f]?\Z", sample):
            return ""  # the text of `*` may complete the escape
        sample = f"{sample}x"
    reason = reach.refused_path(sample)
    if not (reason and wide):
        return reason
    # A DENY also compares decoded paths without trailing blanks, so such characters may be received encoded.
    encoded = _encoded(sample)
    return reach.refused_path(encoded) and reach.refused_path(f"{encoded}%20")


def _encoded(path: str) -> str:
    return _ENCODED.sub(lambda match: "".join(f"%{byte:02X}" for byte in utf8_bytes(match[0])), path)


def suggested_path(value: str) -> str:
    """The path value that was probably meant by `value`, "" if unclear."""
    text = re.sub(r"\A[a-z]+://[^/]*", "", value)
    text = re.split(r"[?#]", text.replace("[^/]", "\0"))[0].replace("\0", "[^/]").removeprefix("^").removesuffix("$")
    text = text.replace("\\.", ".").replace("\\/", "/")
    text = re.sub(r"/+", "/", text if text.startswith(("/", "*")) else f"/{text}")
    segments = text.split("/")
    rest = next((at for at, segment in enumerate(segments) if segment in ("**", "{**}")), len(segments))
    for at, segment in enumerate(segments):
        if segment == "**" and at == rest:
            segments[at] = "{**}"
        elif at == len(segments) - 1 and segment in ("*", ".*", "(.*)") and rest == len(segments):
            segments[at] = "*" if not any("{" in other for other in segments) else "{**}"
        elif _WHOLE_SEGMENT.fullmatch(segment):
            segments[at] = "{*}"
    path = "/".join(segments)
    if "{" in path and path.endswith("/*"):
        path = f"{path[:-1]}{{**}}"
    try:
        matcher = path_matcher(path)
    except ValueError:
        return ""
    plain = _value(matcher)
    odd = plain is not None and ("*" in plain or _REGULAR.search(plain) or re.search(r"[\\;\s{}]", plain))
    return "" if odd or path == value else path


# --- hosts, server names ---


def _host(matcher: Matcher, reach: Reachability) -> tuple[str, str, bool] | None:
    value = _value(matcher)
    if not value:
        return None
    odd = [character for character in value if character not in "[]:" and reach.refused_host(f"a{character}a")]
    bare = re.sub(r"\A[a-z]+://", "", value).split("/")[0]
    if "://" in value or "/" in value:
        extra = "a scheme" if "://" in value else "a path"
        return (
            f"a host has no scheme and no path, but this has {extra}",
            f"write `{bare or 'the host alone'}`",
            bool(odd),
        )
    if "*" in value:
        return _NOT_SPECIAL, "write a `*` at the start only, like `*.example.com`", bool(odd)
    if not value.isascii():
        return "a host is sent in ASCII", "write its Punycode, `xn--…`", bool(odd)
    if isinstance(matcher, Exact) and not odd and reach.refused_host(value):
        hint = f"write `[{value}]`" if re.fullmatch("[0-9A-Fa-f:.]+", value) else "write a name, with a port or without"
        return "requests for such a host are refused before any rule is evaluated", hint, True
    if odd:
        return f"no accepted host contains `{odd[0]}`", "write a name, with a port or without", True
    return None


def _server_name(matcher: Matcher) -> tuple[str, str, bool] | None:
    value = _value(matcher)
    if value is not None and ascii_lower(value) != value:
        return "server names are compared in lower case", f"write `{ascii_lower(matcher.text)}`", True
    if value is not None and re.search(r"[:/]", value):
        return "a server name has no scheme, port or path", "write the name alone", False
    return None


# --- peers ---


def _peer(matcher: Matcher, *, strict: bool) -> tuple[str, str, bool] | None:
    """Check a peer's name. In strict mode it is a valid SPIFFE ID; in Istio semantics it may be any text."""
    match matcher:
        case NamespaceMatcher(namespace=part) | NamespacePattern(value=part):
            wrong = not _ID_PATH.fullmatch(part.replace("*", "")) or "//" in part
            hint = "write the namespace's name alone"
        case ServiceAccount(namespace=space, account=account):
            wrong, hint = not _ID_PATH.fullmatch(space + account), "write `account` or `namespace/account`"
        case InTrustDomain(before=before, after=after):
            wrong, hint = not _DOMAIN.fullmatch(before + (after or "")), f"write `{matcher.text.lower()}`"
        case Exact() | Prefix() | Suffix():
            return _principal(matcher, strict=strict)
        case _:
            return None
    return ("no SPIFFE ID has such characters", hint, True) if wrong and strict else None


def _principal(matcher: Exact | Prefix | Suffix, *, strict: bool) -> tuple[str, str, bool] | None:
    shown = matcher.text.removeprefix(SCHEME)
    rest = matcher.value.removeprefix(SCHEME)
    hint = "write it like `cluster.local/ns/NAMESPACE/sa/ACCOUNT`"
    if rest.startswith(SCHEME):
        hint = f"a principal is written without `spiffe://`: write `{shown.removeprefix(SCHEME)}`"
    elif "*" in rest:
        hint = "`*` is only allowed at the start or the end: add `namespaces` or `serviceAccounts`"
    if isinstance(matcher, Exact):
        try:
            bare = not SpiffeId.parse(matcher.value).path
        except ValueError:
            if strict:
                return f"`{shown}` is not a valid SPIFFE ID", hint, True
        else:
            if strict and bare:
                return "the SPIFFE ID of a trust domain does not identify a workload", f"{hint}, or `{shown}/*`", True
    elif strict and not _part_of_id(matcher, rest):
        return "no SPIFFE ID has such a part", hint, True
    return (_NOT_SPECIAL, hint, False) if "*" in rest or rest.startswith(SCHEME) else None


def _part_of_id(matcher: Prefix | Suffix, rest: str) -> bool:
    """Whether a valid SPIFFE ID may start, or end, with this text after `spiffe://`."""
    if isinstance(matcher, Suffix):
        return _ID_PATH.fullmatch(rest) is not None and "//" not in rest and not rest.endswith("/")
    if not matcher.value.startswith(SCHEME):
        return True
    domain, slash, path = rest.partition("/")
    if slash and not domain:
        return False
    return bool(_DOMAIN.fullmatch(domain) and _ID_PATH.fullmatch(path)) and not f"/{path}".count("//")


# --- tokens, API keys ---


def _request_principal(label: str, matcher: RequestPrincipal, reach: Reachability) -> SuspiciousValue | None:
    text = matcher.text
    if not reach.has_tokens:
        return _no_tokens(label, text)
    issuers = reach.issuers
    all_named = "" not in issuers  # else a rule accepts tokens of any issuer
    if reach.sources is not None and all_named and not any(matcher.issuer.matches(issuer) for issuer in issuers):
        return SuspiciousValue(label, text, *_split(text, matcher, issuers), certain=True)
    if isinstance(matcher.subject, Exact) and matcher.subject.value in ("", "*"):
        issuer = text.rpartition("/")[0] or text
        hint = "write `*`" if text == "*/*" else f"write `{issuer}/*`" if matcher.subject.value else f"write `{text}/*`"
        what = "an empty subject" if not matcher.subject.value else "the subject `*`"
        return SuspiciousValue(label, text, f"it matches only tokens with {what}", hint, certain=False)
    if isinstance(matcher.issuer, (Exact, Prefix, Suffix)) and "*" in matcher.issuer.value:
        return SuspiciousValue(label, text, _NOT_SPECIAL, "write several values", certain=False)
    return None


def _split(text: str, matcher: RequestPrincipal, issuers: Collection[str]) -> tuple[str, str]:
    split = f"it is split at the last `/`, so its issuer is `{matcher.issuer.text}`"
    reason = f"{split}; tokens are accepted from {_some(issuers)}"
    nearest = next(
        (issuer for issuer in sorted(issuers, key=len, reverse=True) if text.rstrip("*").startswith(issuer)), None
    )
    if nearest is None:
        slash = next((issuer for issuer in issuers if issuer.rstrip("/") == text.rpartition("/")[0].rstrip("/")), None)
        return reason, f"write `{slash}/{text.rpartition('/')[2]}`" if slash else "check the spelling of the issuer"
    if text.removeprefix(nearest).strip("/").strip("*") == "":
        return reason, f"write `{nearest}/*`"
    return reason, f"write `{nearest}/*`; a subject with `/` is compared by `request.auth.claims[sub]`"


def _claim(dimension: ClaimDimension, matcher: Matcher) -> tuple[str, str, bool] | None:
    if dimension.path in _SPACED and " " in (_value(matcher) or ""):
        return "the claim is read as a list, split on spaces", "write each word as a separate value", False
    if len(dimension.path) == 1 and re.fullmatch(r"\w+(?:\.\w+)+", dimension.path[0]):
        nested = "][".join(dimension.path[0].split("."))
        reason = f"it names the single claim `{dimension.path[0]}`, not a nested claim"
        return reason, f"write `request.auth.claims[{nested}]` for a nested claim", False
    return None


def _api_key(matcher: Matcher, reach: Reachability, *, scopes: bool) -> tuple[str, str, bool] | None:
    if reach.sources is None:
        return None
    known = {name for source in reach.sources for name in (source.scopes if scopes else source.clients)}
    if any(matcher.matches(name) for name in known):
        return None
    what = "scope" if scopes else "client"
    return f"no ApiKeySet for these workloads has such a {what}", f"known: {_some(known)}", True


def _some(names: Iterable[str]) -> str:
    listed: Sequence[str] = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(f"`{name}`" for name in listed[:3]) or "none") + more
