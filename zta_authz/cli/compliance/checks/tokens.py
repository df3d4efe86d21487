"""Check which tokens are accepted and for how long, and the trust bundles for certificates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from zta_authz.authn.bundle_formats import read_bundle
from zta_authz.authn.bundles import expiry
from zta_authz.cli.compliance.checks.policy_rules import clauses_of, location_of, reads_token, rules_of
from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen
from zta_authz.model.spiffe import TrustDomain
from zta_authz.policy.rules.require import BoundClause, MaxAgeClause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.authorizers import Authorizer
    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import FieldLocation, Value
    from zta_authz.model.documents import JwtRule
    from zta_authz.policy.rules.clauses import Clause

SOON_SECONDS: Final = 30 * 86400.0
MAX_TOKEN_AGE_SECONDS: Final = 24 * 3600.0


def jwt_rules(authorizer: Authorizer) -> Iterator[tuple[JwtRule, FieldLocation]]:
    """Yield the JWT rules with their locations."""
    for document in authorizer.documents.authentications:
        for number, rule in enumerate(document.rules):
            what = f"RequestAuthentication {rule.policy}: spec.jwtRules[{number}]"
            yield rule, authorizer.location(rule.position.source, rule.position.line, what)


def tokens_are_for_us(installation: Installation) -> Iterator[Finding]:
    """Each issuer is an https URL, its keys are fetched over https, and its tokens must name an accepted audience."""
    for authorizer in installation.processes:
        policies = {policy.issuer for policy in authorizer.documents.issuer_policies if policy.audiences}
        for rule, at in jwt_rules(authorizer):
            if not rule.issuer:
                yield Gap("tokens of any issuer are accepted", "name the `issuer`", at)
            elif not rule.audiences and rule.issuer not in policies:
                yield Gap("tokens for any audience are accepted", "list `audiences`", at)
            elif not rule.issuer.startswith("https://") and rule.jwks is None:
                yield Gap(
                    f"issuer `{rule.issuer}` is not an https URL",
                    "use the issuer's https URL, or inline its `jwks`",
                    at,
                )
            elif rule.jwks_uri is not None and not rule.jwks_uri.startswith("https://"):
                yield Gap("keys are fetched without TLS", "write an https `jwksUri`", at)
            else:
                yield Satisfied(at, f"issuer {rule.issuer}, audiences {', '.join(rule.audiences) or 'by IssuerPolicy'}")
        at = authorizer.setting("jwks", "allow_http")
        if authorizer.settings.jwks.allow_http:
            yield Gap("keys may be fetched without TLS", "write `jwks: {allow_http: false}`", at)


def tokens_are_short_lived_or_bound(installation: Installation) -> Iterator[Finding]:
    """A stolen token is useless (bound to its holder) or soon becomes useless (`maxTokenAge`), by issuer or by rule."""
    for authorizer in installation.processes:
        limits = {policy.issuer: policy for policy in authorizer.documents.issuer_policies}
        required = [
            (clause, location_of(authorizer, policy, rule))
            for policy, rule in rules_of(authorizer, "ALLOW")
            for clause in rule.clauses
            if _limits(clause)
        ]
        for clause, at in required:
            yield Satisfied(at, clause.label)
        readers = [
            rule for _, rule in rules_of(authorizer, "ALLOW") if any(reads_token(one) for one in clauses_of(rule))
        ]
        always = bool(readers) and all(any(_limits(one) for one in rule.clauses) for rule in readers)
        for rule, at in jwt_rules(authorizer):
            limit = limits.get(rule.issuer)
            if limit is not None and (limit.require_bound or limit.max_token_age <= MAX_TOKEN_AGE_SECONDS):
                name = f"IssuerPolicy {limit.namespace}/{limit.name}"
                what = "requireBound" if limit.require_bound else f"maxTokenAge {limit.max_token_age:g} s"
                yield Satisfied(authorizer.location(limit.position.source, limit.position.line, name), what)
            elif not always:
                message = f"a stolen token of {rule.issuer or 'any issuer'} is valid until its expiry"
                yield Gap(message, "add an IssuerPolicy with `maxTokenAge` or `requireBound` for this issuer", at)


def _limits(clause: Clause) -> bool:
    """Return whether the clause limits the use of a stolen token."""
    return isinstance(clause, BoundClause) or (
        isinstance(clause, MaxAgeClause) and clause.seconds <= MAX_TOKEN_AGE_SECONDS
    )


def trust_is_anchored(installation: Installation) -> Iterator[Finding]:
    """There is a trust bundle for callers' certificates, and none of its authorities expires soon."""
    for authorizer in installation.authorizers:
        for bundle in authorizer.documents.bundles:
            name = f"TrustBundle {bundle.namespace}/{bundle.name}"
            at = authorizer.location(bundle.position.source, bundle.position.line, name)
            ends = authorizer.snapshot.verifier.bundle_expiry.get(bundle.trust_domain.name)
            yield _expiry_finding(at, ends, installation.now)
        for number, given in enumerate(authorizer.settings.bundles):
            at = authorizer.setting("bundles", number)
            if given.url is not None:
                yield Unseen(f"the bundle of {given.trust_domain} is fetched from {given.url} at run time", at)
            elif given.file is not None:
                yield _file(installation, authorizer, given.trust_domain, given.file, at)
        if authorizer.settings.takes_agent_bundles:
            at = authorizer.setting("workload_api", "socket")
            yield Unseen("trust bundles come from the Workload API at run time", at)
        if not (
            authorizer.documents.bundles
            or authorizer.settings.bundles
            or authorizer.settings.takes_agent_bundles
            or authorizer.unread
        ):
            yield Gap(
                "no trust bundle: every caller is denied",
                "add `bundles` or a TrustBundle",
                authorizer.setting("bundles"),
            )


def _file(installation: Installation, authorizer: Authorizer, domain: str, file: str, at: FieldLocation) -> Finding:
    """Check a bundle file, if it is in a ConfigMap of the manifests."""
    folder, _, name = file.rpartition("/")
    volume = _volume(installation, authorizer, folder)
    holder = None if volume is None else volume.text("configMap", "name")
    namespace = "" if authorizer.workload is None else authorizer.workload.namespace
    document = installation.named("ConfigMap", holder or "", namespace)
    text = None if document is None else document.root.get("data", name)
    if text is None:
        where = f"ConfigMap {holder}" if holder else "a volume"
        return Unseen(f"the authorities of {domain} are in {where}, which is created in the cluster", at)
    bundle, wrong = read_bundle(TrustDomain(domain), text.text().encode())
    if wrong:
        return Gap(
            f"the bundle can't be read: {wrong[0].message}", "insert the authorities in PEM format", text.location
        )
    return _expiry_finding(text.location, expiry(bundle.authorities), installation.now)


def _volume(installation: Installation, authorizer: Authorizer, folder: str) -> Value | None:
    if authorizer.container is None:
        return None
    names = {
        mount.text("name")
        for mount in authorizer.container.items("volumeMounts")
        if mount.text("mountPath").rstrip("/") == folder
    }
    for workload, pod in installation.pods:
        if workload is authorizer.workload:
            return next((volume for volume in pod.items("spec", "volumes") if volume.text("name") in names), None)
    return None


def _expiry_finding(at: FieldLocation, ends: float | None, now: float) -> Finding:
    if ends is None:
        return Unseen("the expiry of its authorities can't be determined from these files", at)
    day = datetime.fromtimestamp(ends, UTC).date().isoformat()
    if ends <= now:
        return Gap(f"an authority expired on {day}", "replace the bundle", at)
    if ends - now < SOON_SECONDS:
        return Gap(
            f"an authority expires on {day}, in less than {SOON_SECONDS / 86400:g} days", "add its successor", at
        )
    return Satisfied(at, f"authorities are valid until {day}")
