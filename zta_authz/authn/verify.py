"""Verify a request's evidence, and return the `Identity` of its caller.

The peer is verified first, then all tokens. A valid credential never makes up for an invalid one: if any credential in
the request is invalid, the request is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.authn.bundles import BundleSlot, compile_bundles, expiry
from zta_authz.authn.jwt_limits import warn_of_unused_issuers
from zta_authz.authn.jwt_registry import compile_rules
from zta_authz.authn.peers import PeerVerifier
from zta_authz.authn.revocation import DynamicRevocations, Revocations
from zta_authz.errors import Refused
from zta_authz.model.identity import RefusedCaller

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.jwt_registry import JwtRegistry, SelectedRules
    from zta_authz.authn.keys import KeySlot
    from zta_authz.errors import Fault
    from zta_authz.model.documents import ApiKeySet, IssuerPolicy, RequestAuthentication, RevocationList, TrustBundle
    from zta_authz.model.identity import Identity, Peer
    from zta_authz.model.options import Options, Workload
    from zta_authz.model.request import Evidence, RequestAttributes


class IdentityVerifier:
    """Verifies peers and tokens with the compiled keys.

    Immutable except for bounded result caches, the memory of DPoP proofs, and slots.

    `issuers` are those of the compiled rules. `strip_headers` are the headers (lower case) that rules may set on the
    request, so that clients may not; `read_headers` are those that carry credentials. `key_slots` receive fetched key
    sets, and `bundle_slot` receives trust bundles from outside the documents.
    """

    __slots__ = (
        "_peers",
        "_registry",
        "bundle_slot",
        "issuers",
        "key_slots",
        "read_headers",
        "revocations",
        "strip_headers",
    )

    def __init__(
        self,
        peers: PeerVerifier,
        registry: JwtRegistry,
        bundle_slot: BundleSlot,
        read_headers: frozenset[str] = frozenset(),
    ) -> None:
        """Combine the two verifiers. Use `compile_verifier` to build one from documents."""
        self._peers = peers
        self._registry = registry
        self.issuers: tuple[str, ...] = tuple(sorted({rule.source.issuer for rule in registry.rules}))
        self.bundle_slot = bundle_slot
        self.strip_headers: frozenset[str] = registry.strip_headers
        self.read_headers = read_headers
        self.key_slots: tuple[KeySlot, ...] = registry.key_slots
        self.revocations: Revocations = registry.revocations
        """The revocations in force."""

    @property
    def documents(self) -> tuple[SelectedRules, ...]:
        """The rules of each document, for linting."""
        return self._registry.documents

    @property
    def svid_issuers(self) -> tuple[str, ...]:
        """The issuers whose JWT-SVIDs every workload accepts."""
        return self._registry.svid_issuers

    @property
    def cache_lookups(self) -> Mapping[str, tuple[int, int]]:
        """Hits and misses of the result caches, for peers and for tokens, since these rules took effect."""
        return {"peers": self._peers.cache_lookups, "tokens": self._registry.cache_lookups}

    def share_replays(self, replays: Replays) -> None:
        """Remember used DPoP proofs in `replays`; verifiers that replace this one will too."""
        self._registry.share_replays(replays)

    def use_revocations(self, dynamic: DynamicRevocations) -> None:
        """Apply the administrator's revocations; verifiers that replace this one will too."""
        self.revocations.use(dynamic)

    def inherit_state(self, before: IdentityVerifier) -> None:
        """Inherit the state that must survive a reload: the used DPoP proofs and the administrator's revocations."""
        self._registry.inherit_replays(before._registry)
        if before.revocations.dynamic is not None:
            self.revocations.use(before.revocations.dynamic)

    @property
    def bundle_expiry(self) -> Mapping[str, float]:
        """When the first authority of each trust domain with a bundle expires, in seconds since the epoch."""
        expiries = ((name, expiry(authorities)) for name, authorities in self.bundle_slot.current.items())
        return {name: when for name, when in expiries if when is not None}

    def verify(
        self,
        request: RequestAttributes,
        evidence: Evidence,
        now: float,
        workload: Workload | None = None,
        *,
        trial: bool = False,
        assumed_issuer: str | None = None,
    ) -> Identity:
        """Verify the caller of `request`.

        Args:
            request: The request, whose headers, query and cookies may contain tokens.
            evidence: The peer's certificate and name, as the proxy sent them.
            now: Seconds since the epoch.
            workload: The workload whose rules apply; None for the options' workload.
            trial: Only explain the request: neither check nor record the use of a DPoP proof.
            assumed_issuer: Don't require a token of this issuer.

        Raises:
            Refused: A credential is invalid, or a required one is missing.
        """
        tokens = self._registry.default if workload is None else self._registry.verifier(workload)
        peer = self._peers.verify(evidence, request.headers, now)
        try:
            return tokens.verify(request, peer, now, trial=trial, assumed_issuer=assumed_issuer)
        except Refused as refused:
            raise RefusedCaller(refused, peer=peer) from None

    def peer(self, request: RequestAttributes, evidence: Evidence, now: float) -> Peer | None:
        """Verify only the peer of `request`; None if there is no evidence of one. Raises `Refused`."""
        return self._peers.verify(evidence, request.headers, now)


def compile_verifier(
    authentications: Sequence[RequestAuthentication],
    bundles: Sequence[TrustBundle],
    options: Options,
    faults: list[Fault],
    *,
    revocations: Iterable[RevocationList] = (),
    issuer_policies: Sequence[IssuerPolicy] = (),
    api_keys: Sequence[ApiKeySet] = (),
    warnings: list[Fault] | None = None,
) -> IdentityVerifier:
    """Compile the verifier for the workloads of `options`. Append faults in key sets and certificates to `faults`."""
    lists = tuple(revocations)
    revoked = Revocations(lists)
    if warnings is not None:
        warn_of_unused_issuers(issuer_policies, authentications, warnings, lists)
    slot = BundleSlot(compile_bundles(bundles, faults))
    return IdentityVerifier(
        PeerVerifier(slot, options, revoked),
        compile_rules(
            authentications,
            options,
            faults,
            revocations=revoked,
            policies=issuer_policies,
            key_sets=api_keys,
            bundles=bundles,
            slot=slot,
        ),
        slot,
        frozenset(
            header.name for document in authentications for rule in document.rules for header in rule.from_headers
        ).union(keys.header for keys in api_keys),
    )
