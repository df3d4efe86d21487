"""Decide requests for commands with the snapshot and the code that `serve` uses.

If a request assumes an identity, the snapshot's verifier is wrapped: the wrapper adds the assumed part of the identity,
and verifies the other credentials as usual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast

from zta_authz.authn.bundles import BundleSlot
from zta_authz.authn.peers import PeerVerifier
from zta_authz.cli.fact_arguments import AssumedTrust
from zta_authz.cli.fact_sources import from_inventory, load_views
from zta_authz.errors import Reason
from zta_authz.model.facts import NO_FACTS
from zta_authz.model.identity import Token
from zta_authz.model.options import CertificateCheck
from zta_authz.model.request import NO_EVIDENCE, Evidence
from zta_authz.model.spiffe import SCHEME
from zta_authz.pdp.decide import evaluate, facts_of, identify
from zta_authz.pdp.explain import explain
from zta_authz.policy.documents.reader import read_all
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy_sources.files import load_snapshot, read_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from zta_authz.authn.revocation import Revocations
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.cli.request_files import Subject
    from zta_authz.model.decision import Decision
    from zta_authz.model.documents import RequestAuthentication
    from zta_authz.model.facts import FactViews
    from zta_authz.model.identity import Identity, Peer
    from zta_authz.model.options import Options, Workload
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.decide import Caller
    from zta_authz.pdp.explain import Explanation
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.fact_reader import FactModels
    from zta_authz.settings import Settings

_SPACED = "spaceDelimitedClaims"


@dataclass(frozen=True, slots=True)
class RuleLocation:
    """The file and line of a rule."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


class AssumingVerifier:
    """Verifies credentials with `verifier`, and adds the identity that `subject` assumes."""

    def __init__(
        self,
        verifier: IdentityVerifier,
        options: Options,
        subject: Subject,
        spaced: Callable[[Workload | None], tuple[str, ...]],
    ) -> None:
        """`spaced` returns, for a workload, the names of claims that rules split on spaces."""
        self._verifier = verifier
        self._trusts_proxy = options.trust_proxy
        believing = replace(options, trust_proxy=True, verify_certificate=CertificateCheck.WHEN_PRESENT)
        self._by_word = PeerVerifier(BundleSlot(), believing)
        self._subject = subject
        self._spaced = spaced

    def verify(
        self,
        request: RequestAttributes,
        evidence: Evidence,
        now: float,
        workload: Workload | None = None,
        *,
        trial: bool = False,
    ) -> Identity:
        """As `IdentityVerifier.verify`. Raises `Refused` for a credential that is invalid or revoked."""
        assumed, revocations = self._subject, self._verifier.revocations
        issuer = None if assumed.claims is None else str(assumed.claims.get("iss", ""))
        verify = partial(self._verifier.verify, request, trial=trial, assumed_issuer=issuer)
        if assumed.principal:
            peer = self._by_word.verify(Evidence(assumed.principal), request.headers, now)
            issued = None if self._trusts_proxy else now
            revocations.check_peer((assumed.principal,), (), issued, now)
            identity = replace(verify(NO_EVIDENCE, now, workload), peer=peer)
        else:
            identity = verify(evidence, now, workload)
        if assumed.claims is None or issuer is None:
            return identity
        subject = str(assumed.claims.get("sub", ""))
        issued_at = assumed.claims.get("iat")
        authority = authority_of(issuer, subject, self._verifier)
        revocations.check_claims(authority, subject, str(assumed.claims.get("jti", "")), issued_at, now)
        token = Token(
            issuer, subject, assumed.claims, space_delimited_claims=self._spaced(workload), issued_at=issued_at
        )
        return replace(identity, token=token, tokens=(token,))

    @property
    def revocations(self) -> Revocations:
        """As `IdentityVerifier.revocations`."""
        return self._verifier.revocations

    def peer(self, request: RequestAttributes, evidence: Evidence, now: float) -> Peer | None:
        """As `IdentityVerifier.peer`."""
        if self._subject.principal:
            return self._by_word.verify(Evidence(self._subject.principal), request.headers, now)
        return self._verifier.peer(request, evidence, now)


def authority_of(issuer: str, subject: str, verifier: IdentityVerifier) -> str:
    """Return the authority that vouches for a token: its issuer, or the trust domain of a JWT-SVID."""
    if not {issuer, ""}.isdisjoint(verifier.issuers) or not subject.startswith(SCHEME):
        return issuer
    return SCHEME + subject.removeprefix(SCHEME).partition("/")[0]


class PolicyEvaluator:
    """Decides requests by the policies at `paths`. Raises `DocumentErrors` with every fault of every file."""

    def __init__(self, paths: Sequence[str], options: Options, settings: Settings | None = None) -> None:
        """Facts come from the files that `settings` name, if given. Raises `FaultsError` for those files, too."""
        self.paths = tuple(paths)
        self._options = options
        self.snapshot = load_snapshot(self.paths, options)
        self._views = NO_FACTS if settings is None else load_views(settings, self.snapshot)

    def decide(self, subject: Subject, now: float) -> Decision:
        """Decide as of `now`, in seconds since the epoch."""
        snapshot = self._snapshot_for(subject)
        return evaluate(
            snapshot, subject.request, subject.evidence, now, subject.caller, views=self._views_for(subject, now)
        )

    def explain(self, subject: Subject, now: float) -> Explanation:
        """Decide, and find the ALLOW rules that nearly matched."""
        snapshot, views = self._snapshot_for(subject), self._views_for(subject, now)
        return explain(snapshot, subject.request, subject.evidence, now, subject.caller, views)

    def facts(self, subject: Subject, now: float) -> tuple[Caller, Inputs, FactModels]:
        """Return the caller, the request whose facts can be read, and the models that select its workload."""
        snapshot, views = self._snapshot_for(subject), self._views_for(subject, now)
        caller = identify(snapshot, subject.request, subject.evidence, now, subject.caller, trial=True)
        models = snapshot.models.select(caller.workload or self._options.workload)
        opener = facts_of(snapshot, caller.workload, views)
        return caller, Inputs(subject.request, caller.identity, self._options, now, None, opener), models

    def _views_for(self, subject: Subject, now: float) -> FactViews:
        """The facts of the settings, and those that the request assumes instead."""
        if subject.facts is None:
            return self._views
        network, device = subject.facts.network, subject.facts.device
        if device is not None and self._views.devices is not None:
            snapshot = self._snapshot_for(subject)
            workload = identify(snapshot, subject.request, subject.evidence, now, subject.caller, trial=True).workload
            models = snapshot.models.select(workload or self._options.workload)
            device = from_inventory(device, self._views, models.devices, now)
        signals = subject.facts.signals
        return replace(self._views, assumed_network=network, assumed_device=device, assumed_signals=signals)

    def locations(self, policy: str, rule: int, action: str) -> tuple[RuleLocation, ...]:
        """Return the locations of a rule: several if policies of two kinds share a name."""
        return self._locations.get((policy, rule, action), ())

    def notes(self, subject: Subject, decision: Decision) -> tuple[str, ...]:
        """Return notes on the decision for the operator."""
        notes = list(self.unjudged(subject))
        issuers = self.snapshot.verifier.issuers
        if subject.claims is not None and subject.claims.get("iss") not in issuers and "" not in issuers:
            issuer = subject.claims.get("iss", "")
            notes.append(
                f"no RequestAuthentication here accepts issuer `{issuer}`: its real tokens would not be verified"
            )
        notes += self._missing_facts(subject, decision)
        view = self.snapshot.table.default_view
        if decision.reason is Reason.NO_MATCHING_POLICY and not self._options.shared and not view.allow.rules:
            workload = self._options.workload
            labels = ", ".join(f"{key}={value}" for key, value in sorted(workload.labels.items())) or "none"
            notes.append(f"no ALLOW rule selects this workload (namespace `{workload.namespace}`, labels: {labels})")
        return tuple(notes)

    def _missing_facts(self, subject: Subject, decision: Decision) -> Iterator[str]:
        """What the settings know, but not of this request: how to add it."""
        device = None if decision.facts is None else decision.facts.device
        if device is not None and not device.device_id and subject.principal and self._views.devices is not None:
            yield "the assumed peer has no certificate: to assume a device, add `--fact device.id=ID`"
        no_network = subject.facts is None or subject.facts.network is None
        if no_network and self._views.networks is not None and not subject.request.source.ip:
            yield "the request has no client address, so nothing is known of the network: add `--source-ip ADDRESS`"

    def unjudged(self, subject: Subject) -> tuple[str, ...]:
        """Return the checks that could not be made because the identity is assumed."""
        verifier, notes = self.snapshot.verifier, []
        if subject.principal and verifier.revocations.revokes_certificates:
            notes.append("not checked: revocations by serial number or SHA-256, because there is no `certificate`")
        if (
            subject.principal
            and not self._options.trust_proxy
            and verifier.revocations.revokes_earlier_credentials(subject.principal)
        ):
            notes.append(
                f"not checked: certificates of `{subject.principal}` that were issued before a certain time are "
                "revoked; the assumed one counts as issued at the time of the decision"
            )
        if subject.claims is not None:
            issuer = str(subject.claims.get("iss", ""))
            authority = authority_of(issuer, str(subject.claims.get("sub", "")), verifier)
            if verifier.revocations.revokes_keys_of(authority):
                notes.append(f"not checked: keys of `{authority}` are revoked, but assumed claims have no signature")
            if self._options.strict and "cnf" in subject.claims:
                notes.append("not checked: whether the caller holds the key that `cnf` binds the token to")
        return tuple(notes)

    @cached_property
    def _locations(self) -> dict[tuple[str, int, str], tuple[RuleLocation, ...]]:
        locations: dict[tuple[str, int, str], tuple[RuleLocation, ...]] = {}
        for policy in self.snapshot.table.policies:
            for rule in policy.rules:
                key = (policy.ref.name, rule.number, policy.ref.action)
                locations[key] = (*locations.get(key, ()), RuleLocation(policy.ref.position.source, rule.line))
        return locations

    def _snapshot_for(self, subject: Subject) -> Snapshot:
        if not subject.assumed:
            return self.snapshot
        base = self._without_required_certificate if subject.principal else self.snapshot
        verifier = AssumingVerifier(base.verifier, self._options, subject, partial(self._spaced_claims, subject))
        # It has the methods that `decide` calls.
        trust = None if subject.facts is None else subject.facts.trust
        models = self.snapshot.models if trust is None else AssumedTrust(self.snapshot.models, trust)
        return replace(self.snapshot, verifier=cast("IdentityVerifier", verifier), models=models)

    @cached_property
    def _without_required_certificate(self) -> Snapshot:
        """The snapshot that verifies tokens if the peer is assumed. It does not require a certificate."""
        if self._options.verify_certificate is not CertificateCheck.REQUIRED:
            return self.snapshot
        return load_snapshot(self.paths, replace(self._options, verify_certificate=CertificateCheck.WHEN_PRESENT))

    def _spaced_claims(self, subject: Subject, workload: Workload | None) -> tuple[str, ...]:
        """Return the claims that the JWT rules of the issuer split on spaces."""
        issuer, root = (subject.claims or {}).get("iss"), self._options.root_namespace
        of = workload or self._options.workload
        return tuple(
            name
            for document in self._spacing
            if document.selector.selects(of.namespace, of.labels, root)
            for rule in document.rules
            if rule.issuer in ("", issuer)
            for name in rule.space_delimited_claims
        )

    @cached_property
    def _spacing(self) -> list[RequestAuthentication]:
        """The RequestAuthentications in sources that mention `spaceDelimitedClaims`."""
        sources = [(source.name, source.text) for source in read_sources(self.paths, []) if _SPACED in source.text]
        return read_all(sources, self._options.workload.namespace, [], [], lambda _: None).authentications
