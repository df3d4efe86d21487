"""Evidence and keys to a verified Identity; raises `Refused` where evidence does not hold.

Peer first, then tokens, each complete: there is no race between credentials, and no falling back from one that is
presented and bad to one that is good.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from zta_authz.authn.bundles import compile_bundles, expiry
from zta_authz.authn.keys import NO_KEYS, KeySlot, parse_jwks
from zta_authz.authn.locations import Places
from zta_authz.authn.peers import PeerVerifier
from zta_authz.authn.rules import TokenRule, TokenVerifier, compile_rule
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.authn.keys import KeySet
    from zta_authz.model.documents import JwtRule, RequestAuthentication, TrustBundle
    from zta_authz.model.identity import Identity
    from zta_authz.model.options import Options
    from zta_authz.model.request import Evidence, RequestAttributes


class IdentityVerifier:
    """Verifies peers and tokens against the keys compiled into it. Immutable but for bounded result caches and slots.

    For status: `issuers` of the rules that apply; `trust_domains` with a bundle; `bundle_expiry`, by trust domain, when
    the first of its authorities expires (seconds since the epoch); `strip_headers`, every header (lower case) that
    rules may set on the request and clients therefore may not. `key_slots` are where fetched key sets go.
    """

    __slots__ = ("_peers", "_tokens", "bundle_expiry", "issuers", "key_slots", "strip_headers", "trust_domains")

    def __init__(
        self,
        peers: PeerVerifier,
        tokens: TokenVerifier,
        trust_domains: tuple[str, ...],
        bundle_expiry: Mapping[str, float],
    ) -> None:
        """Join the two verifiers; use `compile_verifier` to make one from documents."""
        self._peers = peers
        self._tokens = tokens
        self.issuers: tuple[str, ...] = tuple(sorted({rule.source.issuer for rule in tokens.rules}))
        self.trust_domains = trust_domains
        self.bundle_expiry = bundle_expiry
        self.strip_headers: frozenset[str] = tokens.strip_headers
        self.key_slots: tuple[KeySlot, ...] = tuple(dict.fromkeys(rule.keys for rule in tokens.rules))

    def verify(self, request: RequestAttributes, evidence: Evidence, now: float) -> Identity:
        """The verified identity behind `request` at `now`. Raises `Refused`; never returns an unverified one."""
        return self._tokens.verify(request, self._peers.verify(evidence, request.headers, now), now)


def compile_verifier(
    authentications: Iterable[RequestAuthentication],
    bundles: Iterable[TrustBundle],
    options: Options,
    faults: list[Fault],
) -> IdentityVerifier:
    """The verifier for `options.workload`. Everything wrong with a key set or certificate goes to `faults`.

    Key sets of rules that do not apply to the workload are checked too: a mistake is one wherever it waits.
    """
    domains = compile_bundles(bundles, faults)
    rules = _compile_rules(authentications, options, faults)
    expiries = {name: when for name, authorities in domains.items() if (when := expiry(authorities)) is not None}
    return IdentityVerifier(
        PeerVerifier(domains, options),
        TokenVerifier(rules, strict=options.strict),
        tuple(sorted(domains)),
        MappingProxyType(expiries),
    )


def _compile_rules(
    authentications: Iterable[RequestAuthentication], options: Options, faults: list[Fault]
) -> list[TokenRule]:
    workload = options.workload
    places = Places()
    key_sets: dict[str, KeySet] = {}
    slots: dict[tuple[str, str | None, str | None], KeySlot] = {}
    rules = []
    for document in authentications:
        applies = document.selector.selects(workload.namespace, workload.labels, options.root_namespace)
        for rule in document.rules:
            keys = _keys(rule, key_sets, options, faults)
            if applies:
                source = (rule.issuer, rule.jwks_uri, rule.jwks)
                slot = slots.setdefault(source, KeySlot(rule.issuer, rule.jwks_uri, keys))
                rules.append(compile_rule(rule, slot, places))
    return rules


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
