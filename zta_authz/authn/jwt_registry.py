"""The JWT rules and API keys of each workload, with a verifier for each set of them that is built on first use.

One process may serve several workloads (see `policy.workloads`). Only the rules of the request's workload apply to a
token: an issuer that one workload trusts is unknown to the next. Results of signature checks are shared, because they
depend only on the token and the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zta_authz.authn.accepted_tokens import VerifierContext
from zta_authz.authn.api_keys import ApiKeys, ApiKeyVerifier, check_key_sets
from zta_authz.authn.jwt_limits import NO_LIMITS, compile_limits
from zta_authz.authn.jwt_svid import compile_svid_rules
from zta_authz.authn.keys import NO_KEYS, KeySlot, parse_jwks
from zta_authz.authn.locations import TokenLocations
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
"""The number of workloads, and of sets of rules, whose verifiers are cached."""

NO_ISSUERS: Final[Mapping[str, IssuerLimits]] = MappingProxyType({})
"""No limits for any issuer."""

Verifier = TokenVerifier | ApiKeyVerifier
_WorkloadKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class SelectedRules:
    """The compiled rules of one document, or the keys of one ApiKeySet."""

    selector: Selector
    rules: tuple[TokenRule, ...] = ()
    keys: ApiKeySet | None = None
    sources: tuple[JwtRule, ...] = ()
    """All JWT rules of the document as written, including those that can't apply here."""


class JwtRegistry:
    """The rules and API keys of all documents. `default` is the verifier of the options' workload.

    `strip_headers` are the headers set by the rules of any workload: no client may send them.
    """

    __slots__ = ("_by_rules", "_by_workload", "_context", "_documents", "_options", "default", "rules", "strip_headers")

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
        self._context = VerifierContext(
            options.strict, self.strip_headers, revocations, svids, limits, own_issuer=options.token_issuer or None
        )
        self._by_workload: BoundedCache[_WorkloadKey, Verifier] = BoundedCache(MAX_VIEWS)
        self._by_rules: BoundedCache[tuple[int, ...], Verifier] = BoundedCache(MAX_VIEWS)
        self.default = self.verifier(options.workload)

    @property
    def documents(self) -> tuple[SelectedRules, ...]:
        """The rules and API keys by document."""
        return self._documents

    @property
    def svid_issuers(self) -> tuple[str, ...]:
        """The issuers whose JWT-SVIDs every workload accepts, as `spiffe://` and a trust domain."""
        return self._context.svids.issuers if self._context.svids is not None else ()

    @property
    def key_slots(self) -> tuple[KeySlot, ...]:
        """The key slots of all rules, without duplicates."""
        return tuple(dict.fromkeys(rule.keys for rule in self.rules if isinstance(rule.keys, KeySlot)))

    @property
    def revocations(self) -> Revocations:
        """The revocations in force."""
        return self._context.revocations

    @property
    def cache_lookups(self) -> tuple[int, int]:
        """Hits and misses of the token cache."""
        return self._context.cache.hits, self._context.cache.misses

    def share_replays(self, replays: Replays) -> None:
        """Remember used DPoP proofs in `replays`, which others may share."""
        self._context.replays = replays

    def inherit_replays(self, previous: JwtRegistry) -> None:
        """Inherit the used DPoP proofs of the previous registry."""
        self._context.replays = previous._context.replays

    def verifier(self, workload: Workload) -> Verifier:
        """The verifier with the rules that select `workload`, from the cache or built now."""
        key = (workload.namespace, tuple(sorted(workload.labels.items())))
        verifier = self._by_workload[key]
        if verifier is None:
            verifier = self._build(workload)
            self._by_workload.put(key, verifier)
        return verifier

    def _build(self, workload: Workload) -> Verifier:
        chosen = tuple(
            number
            for number, document in enumerate(self._documents)
            if document.selector.selects(workload.namespace, workload.labels, self._options.root_namespace)
        )
        verifier = self._by_rules[chosen]
        if verifier is None:
            documents = [self._documents[number] for number in chosen]
            tokens = TokenVerifier((rule for document in documents for rule in document.rules), self._context)
            keys = ApiKeys(document.keys for document in documents if document.keys is not None)
            verifier = ApiKeyVerifier(tokens, keys) if keys else tokens
            self._by_rules.put(chosen, verifier)
        return verifier


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
) -> JwtRegistry:
    """Compile the rules for `options.workload` or, if the workload depends on the request, for all workloads.

    Key sets of rules that can't apply are checked too. `slot` holds the bundles that verify JWT-SVIDs.
    """
    workload = options.workload
    locations, limits = TokenLocations(), compile_limits(policies)
    key_sets_by_text: dict[str, KeySet] = {}
    slots: dict[tuple[str, str | None, str | None], KeySlot] = {}
    documents = []
    for document in authentications:
        applies = options.shared or document.selector.selects(
            workload.namespace, workload.labels, options.root_namespace
        )
        rules: list[TokenRule] = []
        for rule in document.rules:
            keys = _keys(rule, key_sets_by_text, options, faults)
            if rule.issuer and rule.issuer == options.token_issuer:
                faults.append(_own_issuer(rule))
            if applies:
                source = (rule.issuer, rule.jwks_uri, rule.jwks)
                slot_of_rule = slots.setdefault(source, _slot(rule, keys))
                limit = limits.get(rule.issuer, NO_LIMITS)
                rules.append(compile_rule(rule, slot_of_rule, locations, limit, strict=options.strict))
        documents.append(SelectedRules(document.selector, tuple(rules), sources=document.rules))
    check_key_sets(key_sets, faults)
    documents += [SelectedRules(key_set.selector, keys=key_set) for key_set in key_sets]
    svids = None
    if options.strict and slot is not None:
        svids = compile_svid_rules(bundles, policies, limits, slot, locations.bearer) or None
    return JwtRegistry(documents, options, revocations, svids, limits)


def _own_issuer(rule: JwtRule) -> Fault:
    at, message = rule.position, f"`{rule.issuer}` is the issuer of the tokens that zta-authz mints, `minting.issuer`"
    return Fault(
        at.source, at.line, at.column, message, "remove the rule: tokens minted here are for applications only"
    )


def _slot(rule: JwtRule, keys: KeySet) -> KeySlot:
    fetched = rule.jwks is None
    name = rule.issuer or rule.jwks_uri or ""  # the name in logs and metrics
    return KeySlot(name, rule.jwks_uri, keys, fetched=fetched, timeout_seconds=rule.timeout_seconds)


def _keys(rule: JwtRule, key_sets_by_text: dict[str, KeySet], options: Options, faults: list[Fault]) -> KeySet:
    """Parse the rule's inline keys. Equal texts share one set, so that rules share its cached results."""
    if rule.jwks is None:
        return NO_KEYS
    if rule.jwks not in key_sets_by_text:
        key_sets_by_text[rule.jwks], errors = parse_jwks(rule.jwks, allow_private=not options.strict)
        position = rule.jwks_position or rule.position
        hint = 'give the issuer\'s public keys as JSON: {"keys": [...]} (RFC 7517)'
        faults.extend(Fault(position.source, position.line, position.column, message, hint) for message in errors)
    return key_sets_by_text[rule.jwks]
