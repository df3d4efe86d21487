"""Check the policies: denial by default, no rule that allows everything, decisions by current state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen
from zta_authz.model.options import CertificateCheck
from zta_authz.pdp.paths import path_ambiguity
from zta_authz.policy.lint.linter import Kind, Level, lint
from zta_authz.policy.rules.clauses import RequestPrincipalClause, TextClause
from zta_authz.policy.rules.dimensions import PEER, ClaimDimension
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause
from zta_authz.policy.rules.fact_clauses import FactClause
from zta_authz.policy.rules.require import BoundClause, MaxAgeClause
from zta_authz.policy.rules.require_authentication import AuthenticationClause
from zta_authz.policy.rules.require_trust import TrustClause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zta_authz.cli.compliance.authorizers import Authorizer
    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import FieldLocation
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import CompiledPolicy

_MAX_SHOWN: Final = 5
"""The maximum number of rules that are listed as evidence of a check."""
_ANYTHING: Final = ("*", "/*", "*/*", "/{**}")
_MAX_AGE_OF_RULES_SECONDS: Final = 300.0


def decisions_are_known(installation: Installation) -> Iterator[Finding]:
    """Settings and policies are among the files, so that everything else can be judged."""
    if not installation.authorizers:
        yield Gap("no container runs zta-authz", "add its Deployment, or name its settings with --config")
    for authorizer in installation.processes:
        for message, value in authorizer.unread:
            yield Unseen(message, None if value is None else value.location)
        if authorizer.config is not None:
            yield Satisfied(authorizer.config.location, f"policies of {len(authorizer.snapshot.sources)} files")
        elif not authorizer.unread:
            at = authorizer.setting("semantics")
            yield Satisfied(
                authorizer.container.location if authorizer.container is not None else at,
                "no settings file: defaults apply",
            )


def denial_is_the_default(installation: Installation) -> Iterator[Finding]:
    """`semantics` is strict, and a request that no rule covers is denied."""
    for authorizer in installation.authorizers:
        options = authorizer.settings.options()
        default = authorizer.setting("default_action")
        if options.default_allow:
            yield Gap("a request that no policy covers is allowed", "write `default_action: deny`", default)
        else:
            yield Satisfied(default, "deny")
        at = authorizer.setting("semantics")
        if options.strict:
            yield Satisfied(at, "strict")
        else:
            remedy = "write `semantics: strict`, and find changed decisions with `zta-authz replay`"
            yield Gap("Istio's semantics allow requests that strict semantics deny", remedy, at)


def rules_of(authorizer: Authorizer, *actions: str) -> Iterator[tuple[CompiledPolicy, Rule]]:
    """Yield the rules with these actions, except dry runs."""
    for policy in authorizer.snapshot.table.policies:
        if policy.ref.action in actions and not policy.ref.dry_run:
            for rule in policy.rules:
                yield policy, rule


def location_of(authorizer: Authorizer, policy: CompiledPolicy, rule: Rule) -> FieldLocation:
    """Return the location of a rule."""
    what = f"{policy.ref.order[2]} {policy.ref.name}: spec.rules[{rule.number}]"
    return authorizer.location(policy.ref.position.source, rule.line, what)


def nobody_is_allowed_everything(installation: Installation) -> Iterator[Finding]:
    """No ALLOW rule only requires `*` or only excludes; rules that require no identity are listed."""
    for authorizer in installation.processes:
        policies = authorizer.snapshot.table.policies
        if not policies and not authorizer.unread:
            yield Gap(
                "there are no policies", "write rules that allow the permitted requests", authorizer.setting("policies")
            )
        if authorizer.unread:
            yield Unseen("policies that are not among the files may allow more", authorizer.setting("policies"))
        open_rules = set()
        for policy, rule in rules_of(authorizer, "ALLOW"):
            if _allows_everything(rule):
                open_rules.add((policy.ref.name, rule.number))
                remedy = "restrict callers and operations, or remove the rule"
                yield Gap("the rule allows everything to everyone", remedy, location_of(authorizer, policy, rule))
        unauthenticated = 0
        for finding in lint(authorizer.snapshot.table, now=installation.now, refused_path=_refused(authorizer)):
            if finding.kind is not Kind.UNAUTHENTICATED or (finding.policy, finding.rule) in open_rules:
                continue
            unauthenticated += 1
            at = authorizer.location(finding.source, finding.line, f"{finding.policy}: spec.rules[{finding.rule}]")
            if finding.level is Level.WARNING:
                yield Gap(finding.message, finding.hint, at)
            else:
                yield Unseen(
                    "the rule requires no identity; check that this is intended, for example for health checks", at
                )
        allows = sum(1 for _ in rules_of(authorizer, "ALLOW"))
        if policies and not open_rules and not unauthenticated:
            yield Satisfied(authorizer.setting("policies"), f"{allows} ALLOW rules, all of which require an identity")


def _allows_everything(rule: Rule) -> bool:
    """Return whether a request can match the rule by clauses with `*` only."""
    return all(map(_matches_anything, rule.clauses)) and all(
        any(all(map(_matches_anything, alternative)) for alternative in group) for group in rule.groups
    )


def _matches_anything(clause: Clause) -> bool:
    """Return whether the clause matches every caller with an identity, or every path."""
    if clause.negated or not isinstance(clause, TextClause | RequestPrincipalClause):
        return False
    return any(matcher.text in _ANYTHING for matcher in clause.matchers)


def _refused(authorizer: Authorizer) -> Callable[[str], str]:
    accepts = authorizer.settings.options().accept_ambiguous_paths
    return lambda path: "" if accepts else path_ambiguity(path, "GET")


def callers_are_verified(installation: Installation) -> Iterator[Finding]:
    """zta-authz verifies the peer's certificate itself and does not rely on the proxy for it."""
    for authorizer in installation.authorizers:
        options = authorizer.settings.options()
        at = authorizer.setting("peer", "verify_certificate")
        if options.verify_certificate is CertificateCheck.REQUIRED:
            yield Satisfied(at, "required")
        else:
            message = f"certificates of callers are verified {options.verify_certificate.value.replace('_', ' ')}"
            yield Gap(message, "write `peer: {verify_certificate: required}`", at)
        at = authorizer.setting("peer", "trust_proxy")
        if options.trust_proxy:
            yield Gap(
                "the caller's identity is accepted from the proxy without verification",
                "write `peer: {trust_proxy: false}`",
                at,
            )
        else:
            yield Satisfied(at, "false")


def clauses_of(rule: Rule) -> Iterator[Clause]:
    """Yield the clauses of a rule, including those of alternatives."""
    yield from rule.clauses
    for group in rule.groups:
        for alternative in group:
            yield from alternative


def reads_token(clause: Clause) -> bool:
    """Return whether the clause depends on verified tokens."""
    if isinstance(clause, ConditionClause):
        return any(name.startswith(("claims", "token.")) for name in clause.condition.variables)
    is_claim = isinstance(clause, TextClause) and isinstance(clause.dimension, ClaimDimension)
    return is_claim or isinstance(clause, RequestPrincipalClause)


def _attribute(clause: Clause) -> str:
    """Describe the dynamic attribute that a clause depends on; "" for static ones (method, path)."""
    if isinstance(clause, ConditionClause):
        return f"condition on {', '.join(sorted(clause.condition.variables))}"
    if isinstance(clause, TimeClause):
        return f"time: {clause.times}"
    if isinstance(clause, BoundClause | MaxAgeClause | AuthenticationClause | FactClause | TrustClause):
        return clause.label
    if reads_token(clause):
        return f"verified token: {clause.label}"
    if isinstance(clause, TextClause) and clause.dimension is PEER:
        return f"verified workload: {clause.label}"
    return ""


def decisions_are_dynamic(installation: Installation) -> Iterator[Finding]:
    """Rules depend on the caller and the current state: workload, token, claims, time, conditions."""
    for authorizer in installation.authorizers:
        shown: dict[str, Satisfied] = {}
        for policy, rule in rules_of(authorizer, "ALLOW", "DENY"):
            for clause in clauses_of(rule):
                what = _attribute(clause)
                if what and what.partition(":")[0] not in shown:
                    shown[what.partition(":")[0]] = Satisfied(location_of(authorizer, policy, rule), what)
        yield from list(shown.values())[:_MAX_SHOWN]
        if not shown and not authorizer.unread:
            message = "no rule depends on the caller, the token's claims, the time or other current state"
            yield Gap(
                message,
                "add `principals`, `requestPrincipals`, a `condition` or a time",
                authorizer.setting("policies"),
            )


def changes_take_effect(installation: Installation) -> Iterator[Finding]:
    """Changed policies take effect soon and without a restart."""
    for authorizer in installation.authorizers:
        reload = authorizer.settings.reload
        if not reload.enabled:
            yield Gap(
                "changed policies take effect only after a restart",
                "write `reload: {enabled: true}`",
                authorizer.setting("reload", "enabled"),
            )
        elif reload.poll_seconds > _MAX_AGE_OF_RULES_SECONDS:
            message = f"files are checked for changes only every {reload.poll_seconds:g} s"
            yield Gap(message, "write `reload: {poll_seconds: 1}`", authorizer.setting("reload", "poll_seconds"))
        else:
            yield Satisfied(
                authorizer.setting("reload", "poll_seconds"), f"checked for changes every {reload.poll_seconds:g} s"
            )
        for mount in authorizer.container.items("volumeMounts") if authorizer.container is not None else ():
            below = any(path.startswith(mount.text("mountPath")) for path in authorizer.settings.policies)
            if mount.get("subPath") is not None and below:
                yield Gap(
                    "the kubelet does not update files that are mounted by subPath",
                    "mount the directory",
                    mount.location,
                )


def revocation_is_possible(installation: Installation) -> Iterator[Finding]:
    """A RevocationList is loaded, so that a stolen key or token can be refused within a reload."""
    for authorizer in installation.authorizers:
        for revocations in authorizer.documents.revocations:
            name = f"RevocationList {revocations.namespace}/{revocations.name}"
            at = authorizer.location(revocations.position.source, revocations.position.line, name)
            yield Satisfied(at, f"{len(revocations.entries)} entries")
        if not authorizer.documents.revocations:
            if authorizer.unread:
                yield Unseen("the given policies have no RevocationList", authorizer.setting("policies"))
                continue
            remedy = "add a RevocationList to the policies of the platform team, as k8s/policies/revocations does"
            yield Gap("there is no RevocationList", remedy, authorizer.setting("policies"))
