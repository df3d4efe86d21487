"""Evidence and keys to a verified Identity; raises `Refused` where evidence does not hold.

Peer first, then tokens, each complete: there is no race between credentials, and no falling back from one that is
presented and bad to one that is good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.authn.bundles import BundleSlot, compile_bundles, expiry
from zta_authz.authn.jwt_limits import warn_of_strangers
from zta_authz.authn.jwt_registry import compile_rules
from zta_authz.authn.peers import PeerVerifier
from zta_authz.authn.revocation import Revocations
from zta_authz.errors import Refused
from zta_authz.model.identity import RefusedCaller

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.jwt_registry import RuleBook, SelectedRules
    from zta_authz.authn.keys import KeySlot
    from zta_authz.errors import Fault
    from zta_authz.model.documents import ApiKeySet, IssuerPolicy, RequestAuthentication, RevocationList, TrustBundle
    from zta_authz.model.identity import Identity, Peer
    from zta_authz.model.options import Options, Workload
    from zta_authz.model.request import Evidence, RequestAttributes


class IdentityVerifier:
    """Verifies peers and tokens against the keys compiled into it.

    Immutable but for bounded result caches, the memory of DPoP proofs, and slots.

    For status: `issuers` of the rules that apply; `bundle_expiry`, by trust domain with a bundle now, when the first of
    its authorities expires (seconds since the epoch); `strip_headers`, every header (lower case) that
    rules may set on the request and clients therefore may not; `read_headers`, those that credentials stand in.
    `key_slots` are where fetched key sets go, `bundle_slot` where trust bundles from elsewhere than the documents go.
    """

    __slots__ = ("_book", "_peers", "bundle_slot", "issuers", "key_slots", "read_headers", "strip_headers")

    def __init__(
        self,
        peers: PeerVerifier,
        book: RuleBook,
        bundle_slot: BundleSlot,
        read_headers: frozenset[str] = frozenset(),
    ) -> None:
        """Join the two verifiers; use `compile_verifier` to make one from documents."""
        self._peers = peers
        self._book = book
        self.issuers: tuple[str, ...] = tuple(sorted({rule.source.issuer for rule in book.rules}))
        self.bundle_slot = bundle_slot
        self.strip_headers: frozenset[str] = book.strip_headers
        self.read_headers = read_headers
        self.key_slots: tuple[KeySlot, ...] = book.key_slots

    @property
    def documents(self) -> tuple[SelectedRules, ...]:
        """What each document lets callers prove, for whoever looks for mistakes in policies."""
        return self._book.documents

    @property
    def svid_issuers(self) -> tuple[str, ...]:
        """The issuers whose JWT-SVIDs every workload takes."""
        return self._book.svid_issuers

    @property
    def look_ups(self) -> Mapping[str, tuple[int, int]]:
        """How often a certificate or token was known from before, and how often it was not, since these rules hold."""
        return {"peers": self._peers.look_ups, "tokens": self._book.look_ups}

    def share_replays(self, replays: Replays) -> None:
        """Remember used DPoP proofs in `replays`: what takes over from this verifier does so too."""
        self._book.share_replays(replays)

    def take_over(self, before: IdentityVerifier) -> None:
        """Take from the verifier that this one replaces what must outlive a reload: which DPoP proofs were used."""
        self._book.take_over(before._book)

    @property
    def revocations(self) -> Revocations:
        """What is revoked before its time."""
        return self._book.revocations

    @property
    def bundle_expiry(self) -> Mapping[str, float]:
        """When the first authority of each trust domain expires."""
        found = ((name, expiry(authorities)) for name, authorities in self.bundle_slot.current.items())
        return {name: when for name, when in found if when is not None}

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
        """The verified identity behind `request` at `now`. Raises `Refused`; never returns an unverified one.

        The rules are those that select `workload`, None for the one that the options name. A `trial` answers for a
        request that is only explained: it neither asks nor notes whether a DPoP proof was used before. A token of
        `assumed_issuer` need not be there.
        """
        tokens = self._book.default if workload is None else self._book.verifier(workload)
        peer = self._peers.verify(evidence, request.headers, now)
        try:
            return tokens.verify(request, peer, now, trial=trial, assumed_issuer=assumed_issuer)
        except Refused as refused:
            raise RefusedCaller(refused, peer=peer) from None

    def peer(self, request: RequestAttributes, evidence: Evidence, now: float) -> Peer | None:
        """Only the verified peer behind `request`. Raises `Refused`."""
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
    """The verifier for the workloads of `options`. Everything wrong with a key set or certificate goes to `faults`."""
    lists = tuple(revocations)
    revoked = Revocations(lists)
    if warnings is not None:
        warn_of_strangers(issuer_policies, authentications, warnings, lists)
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
