"""Which JWT rules and API keys are for which workload: a verifier for each set of them, made on first use and kept.

One process may serve several workloads (see `policy.workloads`), and a token is only what the rules that select the
request's own workload make of it: an issuer that one workload trusts says nothing to the next. What was found out about
a token's signature is shared, because it depends on the token and the key alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zta_authz.authn.accepted_tokens import Common
from zta_authz.authn.api_keys import ApiKeys, ApiKeyVerifier, check_key_sets
from zta_authz.authn.jwt_limits import NO_LIMITS, compile_limits
from zta_authz.authn.jwt_svid import compile_svid_rules
from zta_authz.authn.keys import NO_KEYS, KeySlot, parse_jwks
from zta_authz.authn.locations import Places
from zta_authz.authn.outputs import headers_set_by
from zta_authz.authn.revocation import NOTHING_REVOKED
from zta_authz.authn.token_rule import compile_rule
from zta_authz.authn.token_verifier import TokenVerifier
from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zta_authz.authn.bundles import BundleSlot
    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.jwt_limits import IssuerLimits
    from zta_authz.authn.jwt_svid import SvidRules
    from zta_authz.authn.keys import KeySet
    from zta_authz.authn.revocation import Revocations
    from zta_authz.authn.token_rule import TokenRule
    from zta_authz.model.documents import ApiKeySet, IssuerPolicy, JwtRule, RequestAuthentication, Selector, TrustBundle
    from zta_authz.model.options import Options, Workload

MAX_VIEWS: Final = 1024
"""Workloads, and sets of rules, whose verifiers are kept; the longest unused are made again when they come back."""

NO_ISSUERS: Final[Mapping[str, IssuerLimits]] = MappingProxyType({})
"""Nothing is asked of any issuer."""

Verifier = TokenVerifier | ApiKeyVerifier
_WorkloadKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class SelectedRules:
    """The compiled rules of one document, or the keys of one ApiKeySet."""

    selector: Selector
    rules: tuple[TokenRule, ...] = ()
    keys: ApiKeySet | None = None
    sources: tuple[JwtRule, ...] = ()
    """All JWT rules of the document as written, those too that can't apply here."""


class RuleBook:
    """The rules and API keys of all documents. `default` verifies for the workload that the options name.

    `strip_headers` are all that any rule sets, whoever's it is: no client may send what some rule speaks with.
    """

    __slots__ = ("_by_rules", "_by_workload", "_common", "_documents", "_options", "default", "rules", "strip_headers")

    def __init__(
        self,
        documents: Iterable[SelectedRules],
        options: Options,
        revocations: Revocations,
        svids: SvidRules | None = None,
        limits: Mapping[str, IssuerLimits] = NO_ISSUERS,
    ) -> None:
        self._documents = tuple(documents)
        self._options = options
        self.rules: tuple[TokenRule, ...] = tuple(rule for document in self._documents for rule in document.rules)
        self.strip_headers: frozenset[str] = frozenset().union(*(headers_set_by(rule.source) for rule in self.rules))
        self._common = Common(options.strict, self.strip_headers, revocations, svids, limits)
        self._by_workload: BoundedCache[_WorkloadKey, Verifier] = BoundedCache(MAX_VIEWS)
        self._by_rules: BoundedCache[tuple[int, ...], Verifier] = BoundedCache(MAX_VIEWS)
        self.default = self.verifier(options.workload)

    @property
    def documents(self) -> tuple[SelectedRules, ...]:
        """What each document lets callers prove."""
        return self._documents

    @property
    def svid_issuers(self) -> tuple[str, ...]:
        """The issuers whose JWT-SVIDs every workload takes, `spiffe://` and a trust domain each."""
        return self._common.svids.issuers if self._common.svids is not None else ()

    @property
    def key_slots(self) -> tuple[KeySlot, ...]:
        """Where the keys of the rules' issuers stand, each once."""
        return tuple(dict.fromkeys(rule.keys for rule in self.rules if isinstance(rule.keys, KeySlot)))

    @property
    def revocations(self) -> Revocations:
        """What is revoked."""
        return self._common.revocations

    @property
    def look_ups(self) -> tuple[int, int]:
        """Tokens that were known, and those that were not."""
        return self._common.cache.hits, self._common.cache.misses

    def share_replays(self, replays: Replays) -> None:
        """Remember DPoP proofs in `replays`, which others may use as well."""
        self._common.replays = replays

    def take_over(self, before: RuleBook) -> None:
        """Go on remembering the DPoP proofs that the book before this one has seen."""
        self._common.replays = before._common.replays

    def verifier(self, workload: Workload) -> Verifier:
        """The verifier with the rules that select `workload`: kept from the last time, or made now."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        found = self._by_workload[key]
        if found is None:
            found = self._make(workload)
            self._by_workload.put(key, found)
        return found

    def _make(self, workload: Workload) -> Verifier:
        chosen = tuple(
            number
            for number, document in enumerate(self._documents)
            if document.selector.selects(workload.namespace, workload.labels, self._options.root_namespace)
        )
        found = self._by_rules[chosen]
        if found is None:
            documents = [self._documents[number] for number in chosen]
            tokens = TokenVerifier((rule for document in documents for rule in document.rules), self._common)
            keys = ApiKeys(document.keys for document in documents if document.keys is not None)
            found = ApiKeyVerifier(tokens, keys) if keys else tokens
            self._by_rules.put(chosen, found)
        return found


def compile_rules(
    authentications: Iterable[RequestAuthentication],
    options: Options,
    faults: list[Fault],
    *,
    revocations: Revocations = NOTHING_REVOKED,
    policies: Sequence[IssuerPolicy] = (),
    key_sets: Sequence[ApiKeySet] = (),
    bundles: Sequence[TrustBundle] = (),
    slot: BundleSlot | None = None,
) -> RuleBook:
    """The rules that may apply: to `options.workload`, or to any workload where requests say whose they are.

    Key sets of rules that can't apply are checked too: a mistake is one wherever it waits. `slot` has the bundles that
    JWT-SVIDs are verified against.
    """
    workload = options.workload
    places, limits = Places(), compile_limits(policies)
    known: dict[str, KeySet] = {}
    slots: dict[tuple[str, str | None, str | None], KeySlot] = {}
    documents = []
    for document in authentications:
        applies = options.shared or document.selector.selects(
            workload.namespace, workload.labels, options.root_namespace
        )
        rules: list[TokenRule] = []
        for rule in document.rules:
            keys = _keys(rule, known, options, faults)
            if applies:
                source = (rule.issuer, rule.jwks_uri, rule.jwks)
                place = slots.setdefault(source, _slot(rule, keys))
                limit = limits.get(rule.issuer, NO_LIMITS)
                rules.append(compile_rule(rule, place, places, limit, strict=options.strict))
        documents.append(SelectedRules(document.selector, tuple(rules), sources=document.rules))
    check_key_sets(key_sets, faults)
    documents += [SelectedRules(each.selector, keys=each) for each in key_sets]
    svids = None
    if options.strict and slot is not None:
        svids = compile_svid_rules(bundles, policies, limits, slot, places.bearer) or None
    return RuleBook(documents, options, revocations, svids, limits)


def _slot(rule: JwtRule, keys: KeySet) -> KeySlot:
    fetched = rule.jwks is None
    named = rule.issuer or rule.jwks_uri or ""  # what logs and metrics call it
    return KeySlot(named, rule.jwks_uri, keys, fetched=fetched, timeout_seconds=rule.timeout_seconds)


def _keys(rule: JwtRule, known: dict[str, KeySet], options: Options, faults: list[Fault]) -> KeySet:
    """The rule's inline keys. The same text gives the same set, so that results cached for one rule serve the other."""
    if rule.jwks is None:
        return NO_KEYS
    if rule.jwks not in known:
        known[rule.jwks], wrong = parse_jwks(rule.jwks, allow_private=not options.strict)
        position = rule.jwks_position or rule.position
        hint = 'give the issuer\'s public keys as JSON: {"keys": [...]} (RFC 7517)'
        faults.extend(Fault(position.source, position.line, position.column, message, hint) for message in wrong)
    return known[rule.jwks]
