"""Print a decision and its explanation, as text or as JSON fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from zta_authz.cli.output import one_line
from zta_authz.minting.claims import terms_in_force
from zta_authz.model.identity import PeerTrust
from zta_authz.policy.rules.rule import rule_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zta_authz.cli.policy_evaluator import PolicyEvaluator, RuleLocation
    from zta_authz.cli.request_files import Subject
    from zta_authz.model.decision import Decision, Remedy
    from zta_authz.model.minting import MintTerms
    from zta_authz.pdp.explain import Explanation, Miss

_TRUST = {PeerTrust.CERTIFICATE: "certificate verified", PeerTrust.PROXY: "asserted by the proxy"}


def time_text(at: float) -> str:
    """Format `at`, in seconds since the epoch, as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def decision_fields(evaluator: PolicyEvaluator, subject: Subject, explanation: Explanation) -> dict[str, Any]:
    """Return the decision as JSON fields; `policy`, `rule` and parts of `identity` may be null."""
    decision = explanation.decision
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "detail": decision.detail,
        "policy": decision.policy or None,
        "rule": decision.rule,
        "ruleName": decision.rule_name or None,
        "places": [_location_fields(location) for location in _locations(evaluator, decision)],
        "matched": list(explanation.matched),
        "facts": list(explanation.facts),
        "identity": _identity_fields(subject, decision),
        "nearest": [
            {
                "policy": miss.policy,
                "rule": miss.rule,
                "ruleName": miss.rule_name or None,
                "places": [
                    _location_fields(location) for location in evaluator.locations(miss.policy, miss.rule, "ALLOW")
                ],
                "failed": list(miss.failed),
            }
            for miss in explanation.nearest
        ],
        "remedy": _remedy_fields(decision),
        "mint": _mint_fields(decision),
        "matchedWithoutDeciding": [
            {
                "action": shadow.action,
                "policy": shadow.policy,
                "rule": shadow.rule,
                "ruleName": shadow.rule_name or None,
                "dryRun": shadow.dry_run,
            }
            for shadow in decision.shadows
        ],
        "notes": list(evaluator.notes(subject, decision)),
    }


def _mint_fields(decision: Decision) -> dict[str, Any] | None:
    """The token that would be minted for the application; null for none."""
    terms = terms_in_force(decision)
    if terms is None:
        return None
    return {
        "audience": terms.audience,
        "header": terms.header,
        "kind": terms.kind.value,
        "lifetimeSeconds": terms.lifetime,
        "scope": terms.scope or None,
    }


def _mint_text(terms: MintTerms) -> str:
    scope = f", scope `{terms.scope}`" if terms.scope else ""
    return f"a {terms.kind.value} token for `{terms.audience}` in header `{terms.header}`, {terms.lifetime:g} s{scope}"


def _remedy_fields(decision: Decision) -> dict[str, Any] | None:
    """What the response says that the caller can do; null if it says nothing."""
    remedy = decision.remedy
    if remedy is None:
        return None
    return {
        "policy": remedy.policy,
        "rule": remedy.rule,
        "acr": list(remedy.acr),
        "maxAge": remedy.max_age,
        "login": remedy.login or None,
        "trustComponents": list(remedy.components),
        "entitlement": remedy.entitlement or None,
        "disclosed": remedy.disclosed,
    }


def _remedy_text(remedy: Remedy) -> str:
    if remedy.entitlement:
        return f"grant_required, naming {remedy.entitlement}: ask with `zta-authz access request {remedy.entitlement}`"
    if remedy.components:
        disclosed = ", ".join(remedy.components) if remedy.disclosed else "no component"
        return f"trust_too_low, naming {disclosed}"
    parts = [f"acr_values {' '.join(remedy.acr)}"] if remedy.acr else []
    parts += [f"max_age {remedy.max_age}"] if remedy.max_age is not None else []
    login = f"; browsers are sent to {remedy.login}" if remedy.login else ""
    return f"a {'DPoP' if remedy.dpop else 'Bearer'} challenge with {', '.join(parts)}{login}"


def _location_fields(location: RuleLocation) -> dict[str, Any]:
    return {"source": location.source, "line": location.line}


def _locations(evaluator: PolicyEvaluator, decision: Decision) -> tuple[RuleLocation, ...]:
    if decision.rule is None:
        return ()
    return evaluator.locations(decision.policy, decision.rule, decision.verdict.value.upper())


def _identity_fields(subject: Subject, decision: Decision) -> dict[str, Any]:
    peer, token = decision.identity.peer, decision.identity.token
    return {
        "principal": decision.identity.principal or None,
        "trust": None if peer is None else "assumed" if subject.principal else peer.trust.value,
        "requestPrincipal": None if token is None else f"{token.issuer}/{token.subject}",
        "tokenPolicy": None if token is None else token.policy or None,
        "assumed": list(subject.assumed),
    }


def print_lines(evaluator: PolicyEvaluator, subject: Subject, explanation: Explanation) -> Iterator[Text]:
    """Return the lines of text that describe the decision."""
    decision = explanation.decision
    style = "bold green" if decision.allowed else "bold red"
    yield Text(decision.verdict.value.upper(), style=style).append(f"  {decision.reason.value}", style="not bold")
    if decision.detail:
        yield _row("because", decision.detail)
    if decision.policy:
        rule, at = rule_label(decision.rule, decision.rule_name), _at(_locations(evaluator, decision))
        yield _row("policy", f"{decision.policy}, rule {rule}{at}")
    if decision.remedy is not None:
        yield _row("answer", _remedy_text(decision.remedy))
    terms = terms_in_force(decision)
    if terms is not None:
        yield _row("mint", _mint_text(terms))
    for line in explanation.matched:
        yield _row("matched", line)
    for line in explanation.facts:
        kind, _, text = line.partition(": ")
        yield _row(kind, text)
    yield _row("peer", _peer(subject, decision))
    yield _row("token", _token(subject, decision))
    for shadow in decision.shadows:
        how = "dry run" if shadow.dry_run else "does not decide"
        yield _row(
            "also",
            f"{shadow.action} policy {shadow.policy}, rule {rule_label(shadow.rule, shadow.rule_name)} matched ({how})",
        )
    for note in evaluator.notes(subject, decision):
        yield _row("note", note)
    yield from nearest_lines(evaluator, explanation.nearest)


def nearest_lines(evaluator: PolicyEvaluator, nearest: Sequence[Miss]) -> Iterator[Text]:
    """Return lines for the ALLOW rules that nearly matched, each with its failed clauses."""
    if nearest:
        yield Text("nearest ALLOW rules:")
    for miss in nearest:
        at = _at(evaluator.locations(miss.policy, miss.rule, "ALLOW"))
        yield Text(one_line(f"  {miss.policy}, rule {rule_label(miss.rule, miss.rule_name)}{at}"), style="bold")
        for failed in miss.failed:
            yield Text(one_line(f"    {failed}"))


def _row(name: str, value: str) -> Text:
    return Text(f"{name:<8}", style="dim").append(one_line(value), style="not dim")


def _at(locations: tuple[RuleLocation, ...]) -> str:
    return f" ({' or '.join(str(location) for location in locations)})" if locations else ""


def _peer(subject: Subject, decision: Decision) -> str:
    peer = decision.identity.peer
    if peer is None:
        return "none"
    names = ", ".join(peer.names) or peer.principal
    return f"{names} ({'assumed' if subject.principal else _TRUST[peer.trust]})"


def _token(subject: Subject, decision: Decision) -> str:
    token, refused = decision.identity.token, decision.refused_token
    if refused is not None:
        how = "its signature is valid" if refused.verified else "not verified"
        return f"refused: issuer `{refused.issuer}`, subject `{refused.subject}` ({how})"
    if token is None:
        return "none"
    how = "assumed" if subject.claims is not None else f"verified by {token.policy}" if token.policy else "verified"
    return f"issuer `{token.issuer}`, subject `{token.subject}` ({how})"
