"""Values of rules that no request has, and what was probably meant by them.

A doubt is certain where it is proved: no request that reaches the rules has such a value. Else the value can only meet
a request that has its odd characters, `*` or `^`, as they are written: nobody means that, but it is no proof.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from zta_authz.model.documents import Selector
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.identity_matchers import RequestPrincipal
    from zta_authz.policy.rules.matchers import Matcher

_ENCODED: Final = re.compile(r"[^!-~]|[%?#]")
"""What can't stand in a path as it is."""
_DOMAIN: Final = re.compile(r"[a-z0-9._-]*")
_ID_PATH: Final = re.compile(r"[A-Za-z0-9._/-]*")
_REGULAR: Final = re.compile(r"\A\^|\$\Z|\.[*+]|\\[dwsDWS.]|\[[^\]/]*-[^\]/]*\]|\([^()]*\|[^()]*\)|\[\^/\]")
_WHOLE_SEGMENT: Final = re.compile(r"\{\w+\}|:\w+|\*|\[\^/\][*+]|\\[wd][*+]|\.[*+]|\(\.[*+]\)|\[[\w-]+\][*+]|<\w+>")
_SPACED: Final = (("scope",), ("permission",))
_NOT_SPECIAL: Final = "a value is compared as text: `*` stands for any text only at its start or end"
_NO_REGEX: Final = "a value is compared as text, it is no regular expression"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why `value` of the clause labelled `label` matches nothing, or (not `certain`) nothing but its own characters."""

    label: str
    value: str
    reason: str
    hint: str
    certain: bool


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """What one document lets callers prove: tokens of `issuers`, and API keys of `clients` with `scopes`.

    `requires_token`: without one of its tokens no request passes.
    """

    selector: Selector
    issuers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    requires_token: bool = False

    def covers(self, selector: Selector, root: str) -> bool:
        """Whether this document is for every workload that a policy with `selector` is for."""
        mine = self.selector
        return mine.namespace in (selector.namespace, root) and mine.labels.items() <= selector.labels.items()

    def concerns(self, selector: Selector, root: str) -> bool:
        """Whether there may be a workload that both this document and a policy with `selector` are for."""
        mine = self.selector
        if mine.namespace != selector.namespace and root not in (mine.namespace, selector.namespace):
            return False
        return all(selector.labels.get(key, value) == value for key, value in mine.labels.items())


@dataclass(frozen=True)
class Reach:
    """What can reach the rules of one policy: what is refused before, and what callers can prove.

    `refused_path` says why a path is refused, "" where it is not; `refused_host` whether an authority is. `sources` are
    None where it is not known what callers can prove.
    """

    strict: bool
    refused_path: Callable[[str], str] = lambda _: ""
    refused_host: Callable[[str], bool] = lambda _: False
    sources: tuple[CredentialSource, ...] | None = None

    @cached_property
    def issuers(self) -> frozenset[str]:
        """Whose tokens are verified."""
        return frozenset(issuer for source in self.sources or () for issuer in source.issuers)

    @property
    def has_tokens(self) -> bool:
        """False only where no token can ever be verified."""
        return self.sources is None or bool(self.issuers)


def doubts(clause: Clause, reach: Reach, *, deny: bool) -> list[Doubt | None]:
    """For each value of the clause why it matches nothing, None where it may match; [] for a clause without values."""
    if isinstance(clause, RequestPrincipalClause):
        return [_request_principal(clause.label, matcher, reach) for matcher in clause.matchers]
    if isinstance(clause, (BoundClause, MaxAgeClause)):
        return [None if reach.has_tokens else _no_tokens(clause.label, clause.expected)]
    if not isinstance(clause, TextClause):
        return []
    wide = reach.strict and deny is not clause.negated
    return [_text(clause, matcher, reach, wide=wide) for matcher in clause.matchers]


def _text(clause: TextClause, matcher: Matcher, reach: Reach, *, wide: bool) -> Doubt | None:
    dimension = clause.dimension
    found: tuple[str, str, bool] | None = None
    if dimension is PATH:
        found = _path(matcher, reach, wide=wide)
    elif dimension is HOST:
        found = _host(matcher, reach)
    elif dimension is METHOD:
        found = several_methods(matcher, strict=reach.strict)
    elif dimension is PEER:
        found = _peer(matcher, strict=reach.strict)
    elif dimension is SNI:
        found = _server_name(matcher)
    elif dimension in (API_CLIENT, API_SCOPES):
        found = _api_key(matcher, reach, scopes=dimension is API_SCOPES)
    elif isinstance(dimension, ClaimDimension):
        if not reach.has_tokens:
            return _no_tokens(clause.label, matcher.text)
        found = _claim(dimension, matcher)
    else:
        found = unknown_pseudo_header(dimension)
    if found is None and dimension is not PEER:
        found = _literal(matcher)
    shown = matcher.text.removeprefix(SCHEME) if dimension is PEER else matcher.text
    return None if found is None else Doubt(clause.label, shown, *found)


def _no_tokens(label: str, value: str) -> Doubt:
    reason = "no RequestAuthentication is for these workloads, so no token is ever verified"
    return Doubt(label, value, reason, "add a RequestAuthentication for them, or remove the field", certain=True)


def _value(matcher: Matcher) -> str | None:
    """The text that is compared, without the `*` that stands for any text; None for other forms."""
    return matcher.value if isinstance(matcher, (Exact, Prefix, Suffix)) else None


def _literal(matcher: Matcher) -> tuple[str, str, bool] | None:
    """`*` and regular expressions in a value that is compared as text."""
    value = _value(matcher)
    if value is None:
        return None
    if "*" in value:
        return _NOT_SPECIAL, "write several values, or a `condition` with `matches`", False
    if re.search(r"\A\^|\.[*+]", value):
        return _NO_REGEX, "write the values out, or a `condition` with `matches`", False
    return None


# --- paths ---


def _path(matcher: Matcher, reach: Reach, *, wide: bool) -> tuple[str, str, bool] | None:
    value = matcher.text if isinstance(matcher, Template) else _value(matcher)
    if value is None:
        return None
    meant = meant_path(matcher.text)
    refused = _refusal(matcher, value, reach, wide=wide)
    if "?" in value or "#" in value:
        certain = not wide or bool(refused) or bool(reach.refused_path(_encoded(value)))
        return "paths are compared without query and fragment", f"write `{re.split('[?#]', value)[0]}`", certain
    if refused:
        hint = f"write `{meant}`" if meant else "write the path as it is once normalised"
        return f"requests for such a path are refused before any rule is asked: {refused}", hint, True
    if isinstance(matcher, Template):
        return None
    if not isinstance(matcher, Suffix) and not value.startswith("/"):
        return "a path starts with `/`", f"write `{meant or '/' + matcher.text}`", False
    hint = f"write `{meant}`" if meant else "`{*}` stands for one whole segment, `{**}` for the rest of a path"
    if "*" in value:
        return _NOT_SPECIAL, hint, False
    if _REGULAR.search(value):
        return _NO_REGEX, hint, False
    if any(_WHOLE_SEGMENT.fullmatch(segment) for segment in value.split("/")):
        return "a value is compared as text, and `{*}` is what stands for one segment", hint, False
    return None


def _refusal(matcher: Matcher, value: str, reach: Reach, *, wide: bool) -> str:
    """Why every path that the matcher means is refused, "" where that is not proved.

    A sample tells for all: what is refused in it stands within the value, not where it meets what `*` stands for.
    """
    sample = value.replace("{**}", "x").replace("{*}", "x") if isinstance(matcher, Template) else value
    if isinstance(matcher, Suffix):
        sample = f"/x{sample}"
    elif isinstance(matcher, Prefix):
        if re.search(r"%[0-9A-Fa-f]?\Z", sample):
            return ""  # what follows may complete it
        sample = f"{sample}x"
    found = reach.refused_path(sample)
    if not (found and wide):
        return found
    # A DENY sees paths decoded too, without blanks at their end: so what can't stand in a path may come encoded.
    encoded = _encoded(sample)
    return reach.refused_path(encoded) and reach.refused_path(f"{encoded}%20")


def _encoded(path: str) -> str:
    return _ENCODED.sub(lambda found: "".join(f"%{byte:02X}" for byte in utf8_bytes(found[0])), path)


def meant_path(value: str) -> str:
    """The path value that was probably meant by `value`, "" where nobody can tell."""
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
            segments[at] = "*" if not any("{" in each for each in segments) else "{**}"
        elif _WHOLE_SEGMENT.fullmatch(segment):
            segments[at] = "{*}"
    found = "/".join(segments)
    if "{" in found and found.endswith("/*"):
        found = f"{found[:-1]}{{**}}"
    try:
        matcher = path_matcher(found)
    except ValueError:
        return ""
    plain = _value(matcher)
    odd = plain is not None and ("*" in plain or _REGULAR.search(plain) or re.search(r"[\\;\s{}]", plain))
    return "" if odd or found == value else found


# --- hosts, server names ---


def _host(matcher: Matcher, reach: Reach) -> tuple[str, str, bool] | None:
    value = _value(matcher)
    if not value:
        return None
    odd = [each for each in value if each not in "[]:" and reach.refused_host(f"a{each}a")]
    bare = re.sub(r"\A[a-z]+://", "", value).split("/")[0]
    if "://" in value or "/" in value:
        what = "a scheme" if "://" in value else "a path"
        return f"a host has no scheme and no path, this has {what}", f"write `{bare or 'the host alone'}`", bool(odd)
    if "*" in value:
        return _NOT_SPECIAL, "write a `*` at the start only, like `*.example.com`", bool(odd)
    if not value.isascii():
        return "a host is sent in ASCII", "write its Punycode, `xn--…`", bool(odd)
    if isinstance(matcher, Exact) and not odd and reach.refused_host(value):
        hint = f"write `[{value}]`" if re.fullmatch("[0-9A-Fa-f:.]+", value) else "write a name, with a port or without"
        return "requests for such a host are refused before any rule is asked", hint, True
    if odd:
        return f"no host that is let through has `{odd[0]}` in it", "write a name, with a port or without", True
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
    """Names in strict reading are valid SPIFFE IDs; in Istio's reading they may be anything."""
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
        hint = "`*` stands at the start or the end only: name `namespaces` or `serviceAccounts` beside"
    if isinstance(matcher, Exact):
        try:
            bare = not SpiffeId.parse(matcher.value).path
        except ValueError:
            if strict:
                return f"`{shown}` is no valid SPIFFE ID", hint, True
        else:
            if strict and bare:
                return "the SPIFFE ID of a trust domain is not a workload's", f"{hint}, or `{shown}/*`", True
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


def _request_principal(label: str, matcher: RequestPrincipal, reach: Reach) -> Doubt | None:
    text = matcher.text
    if not reach.has_tokens:
        return _no_tokens(label, text)
    issuers = reach.issuers
    named = "" not in issuers  # else a rule takes tokens of any issuer
    if reach.sources is not None and named and not any(matcher.issuer.matches(issuer) for issuer in issuers):
        return Doubt(label, text, *_split(text, matcher, issuers), certain=True)
    if isinstance(matcher.subject, Exact) and matcher.subject.value in ("", "*"):
        issuer = text.rpartition("/")[0] or text
        hint = "write `*`" if text == "*/*" else f"write `{issuer}/*`" if matcher.subject.value else f"write `{text}/*`"
        what = "an empty subject" if not matcher.subject.value else "the subject `*`"
        return Doubt(label, text, f"it is for tokens with {what}", hint, certain=False)
    if isinstance(matcher.issuer, (Exact, Prefix, Suffix)) and "*" in matcher.issuer.value:
        return Doubt(label, text, _NOT_SPECIAL, "write several values", certain=False)
    return None


def _split(text: str, matcher: RequestPrincipal, issuers: Collection[str]) -> tuple[str, str]:
    split = f"it is split at the last `/`, so that its issuer is `{matcher.issuer.text}`"
    reason = f"{split}; tokens here are of {_some(issuers)}"
    near = next((each for each in sorted(issuers, key=len, reverse=True) if text.rstrip("*").startswith(each)), None)
    if near is None:
        slash = next((each for each in issuers if each.rstrip("/") == text.rpartition("/")[0].rstrip("/")), None)
        return reason, f"write `{slash}/{text.rpartition('/')[2]}`" if slash else "compare the issuer letter by letter"
    if text.removeprefix(near).strip("/").strip("*") == "":
        return reason, f"write `{near}/*`"
    return reason, f"write `{near}/*`; a subject with `/` is compared by `request.auth.claims[sub]`"


def _claim(dimension: ClaimDimension, matcher: Matcher) -> tuple[str, str, bool] | None:
    if dimension.path in _SPACED and " " in (_value(matcher) or ""):
        return "the claim is read as a list, split on spaces", "write each word as a value of its own", False
    if len(dimension.path) == 1 and re.fullmatch(r"\w+(?:\.\w+)+", dimension.path[0]):
        nested = "][".join(dimension.path[0].split("."))
        reason = f"it names one claim `{dimension.path[0]}`, not one within another"
        return reason, f"write `request.auth.claims[{nested}]` for a nested claim", False
    return None


def _api_key(matcher: Matcher, reach: Reach, *, scopes: bool) -> tuple[str, str, bool] | None:
    if reach.sources is None:
        return None
    known = {name for source in reach.sources for name in (source.scopes if scopes else source.clients)}
    if any(matcher.matches(name) for name in known):
        return None
    what = "scope" if scopes else "client"
    return f"no ApiKeySet for these workloads has such a {what}", f"known: {_some(known)}", True


def _some(names: Iterable[str]) -> str:
    found: Sequence[str] = sorted(names)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (", ".join(f"`{name}`" for name in found[:3]) or "none") + more
