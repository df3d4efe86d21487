"""A rule that requires a grant matches only for its holder, while it lasts, and while the holder is eligible."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import FRONTEND, STRICT, faults, identity, request, snapshot
from zta_authz.errors import Reason
from zta_authz.model.access import Grant, Subject
from zta_authz.model.facts import NO_FACTS, FactSlot, FactViews
from zta_authz.pdp.decide import Caller, decide
from zta_authz.policy.rules.fact_reader import FactOpener
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require_grant import GrantClause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.model.identity import Identity
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot

NOW = 1_800_000_000.0
ISSUER = "https://login.example"
ANN = Subject(ISSUER, "ann")
ENTITLEMENT = """
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {name: payments-db, namespace: default}
spec:
  who: [{source: {requestPrincipals: ["https://login.example/*"], namespaces: [default]}}]
  to: [{operation: {hosts: [payments-db], methods: [GET, POST]}}]
  maxDuration: 4h
  approvers: [{from: [{source: {requestPrincipals: ["https://login.example/boss"]}}]}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: db, namespace: default}
spec:
  rules:
  - name: just-in-time
    to: [{operation: {hosts: [payments-db, other]}}]
    require: {grant: payments-db}
"""
GRANT_DOCUMENT = """
apiVersion: zta.dev/v1
kind: AccessGrant
metadata: {name: ann, namespace: default}
spec:
  entitlement: payments-db
  subject: {issuer: https://login.example, subject: ann}
  from: 2027-01-01T00:00:00Z
  until: 2027-02-01T00:00:00Z
"""
QUERY = request("GET", "/query", host="payments-db")


@dataclass
class Grants:
    """The administrator's grants, given by a test."""

    grants: Sequence[Grant] = ()
    stale: bool = False

    def is_stale(self, now: float) -> bool:
        del now
        return self.stale

    def find(self, entitlement: str, subjects: Sequence[Subject], now: float) -> Grant | None:
        held = [grant for grant in self._of(entitlement, subjects) if grant.is_active(now)]
        return max(held, key=lambda grant: grant.until, default=None)

    def latest(self, entitlement: str, subjects: Sequence[Subject]) -> Grant | None:
        return max(self._of(entitlement, subjects), key=lambda grant: grant.until, default=None)

    def _of(self, entitlement: str, subjects: Sequence[Subject]) -> list[Grant]:
        return [grant for grant in self.grants if grant.entitlement == entitlement and grant.subject in subjects]


def grant(start: float = NOW - 60, until: float = NOW + 3600, subject: Subject = ANN, name: str = "g1") -> Grant:
    return Grant(name, "default/payments-db", subject, start, until)


def views(*grants: Grant, stale: bool = False) -> FactViews:
    return FactViews(grants=Grants(grants, stale))


def caller(subject: str = "ann", principal: str = FRONTEND, **claims: Any) -> Identity:
    return identity(principal, claims={"iss": ISSUER, "sub": subject, **claims})


def decided(
    facts: FactViews,
    who: Identity | None = None,
    asked: RequestAttributes = QUERY,
    now: float = NOW,
    compiled: Snapshot | None = None,
) -> Decision:
    return decide(compiled or snapshot(ENTITLEMENT), asked, Caller(who or caller()), now, views=facts)


def test_the_holder_of_an_active_grant_is_allowed_until_it_ends() -> None:
    facts = views(grant())
    assert decided(facts).reason is Reason.ALLOW_POLICY
    assert decided(facts, now=NOW - 61).reason is Reason.GRANT_REQUIRED, "it has not begun"
    assert decided(facts, now=NOW + 3599.9).allowed
    assert decided(facts, now=NOW + 3600).reason is Reason.GRANT_REQUIRED, "it ends by itself"


def test_a_grant_counts_only_for_its_subject_and_entitlement() -> None:
    assert decided(views(grant(subject=Subject(ISSUER, "bob")))).reason is Reason.GRANT_REQUIRED
    assert decided(views(grant(subject=Subject("https://other.example", "ann")))).reason is Reason.GRANT_REQUIRED
    other = Grant("g", "other/payments-db", ANN, NOW - 1, NOW + 60)
    assert decided(views(other)).reason is Reason.GRANT_REQUIRED
    assert decided(views(grant(subject=Subject(spiffe_id=FRONTEND)))).allowed, "the workload holds it"


def test_overlapping_grants_do_not_end_each_other() -> None:
    facts = views(grant(until=NOW + 10, name="short"), grant(until=NOW + 1000, name="long"))
    assert decided(facts, now=NOW + 500).allowed


def test_the_decision_names_the_grant_that_it_needs() -> None:
    short, long = grant(until=NOW + 10, name="short"), grant(until=NOW + 1000, name="long")
    allow = decided(views(short, long))
    assert allow.access is not None
    assert (allow.access.grant, allow.access.revocation) == (long, "")
    assert decided(views()).access is None, "a denial needs none"


def test_the_decision_names_no_grant_that_its_rule_does_not_need() -> None:
    also = (
        ENTITLEMENT
        + """
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: a-rule-that-comes-first, namespace: default}
spec:
  rules:
  - to: [{operation: {hosts: [payments-db], paths: ["/query"]}}]
    require: {grant: payments-db}
    from: [{source: {requestPrincipals: ["https://login.example/boss"]}}]
  - to: [{operation: {hosts: [payments-db], paths: ["/query"]}}]
"""
    )
    allow = decided(views(grant()), compiled=snapshot(also))
    assert (allow.policy, allow.rule, allow.access) == ("default/a-rule-that-comes-first", 1, None)


def test_a_rule_that_needs_two_grants_names_the_one_that_ends_first() -> None:
    both = (
        ENTITLEMENT.replace("name: payments-db, ", "name: other-db, ", 1).split("---")[0]
        + "---"
        + ENTITLEMENT.replace("    require: {grant: payments-db}", "    require: {grant: other-db}").replace(
            "  rules:\n", "  require: {grant: payments-db}\n  rules:\n"
        )
    )
    first = Grant("first", "default/other-db", ANN, NOW - 1, NOW + 5)
    allow = decided(views(first, grant()), compiled=snapshot(both))
    assert allow.access is not None
    assert allow.access.grant == first


def test_eligibility_that_is_lost_ends_the_grant() -> None:
    elsewhere = caller(principal="spiffe://cluster.local/ns/elsewhere/sa/frontend")
    decision = decided(views(grant()), elsewhere)
    assert decision.reason is Reason.NO_MATCHING_POLICY, "who is not eligible learns nothing of the entitlement"


def test_a_grant_is_not_used_outside_what_its_entitlement_is_for() -> None:
    asked = request("GET", "/query", host="other")
    assert decided(views(grant()), asked=asked).reason is Reason.NO_MATCHING_POLICY
    asked = request("DELETE", "/query", host="payments-db")
    assert decided(views(grant()), asked=asked).reason is Reason.NO_MATCHING_POLICY


def test_grants_of_a_view_that_is_too_old_do_not_count() -> None:
    assert decided(views(grant(), stale=True)).reason is Reason.GRANT_REQUIRED


def test_without_an_administrator_only_documents_grant() -> None:
    assert decided(NO_FACTS).reason is Reason.GRANT_REQUIRED
    compiled = snapshot(ENTITLEMENT, GRANT_DOCUMENT)
    january = 1_799_000_000.0
    assert decided(NO_FACTS, now=january, compiled=compiled).allowed
    assert decided(NO_FACTS, caller("bob"), now=january, compiled=compiled).reason is Reason.GRANT_REQUIRED
    assert not decided(NO_FACTS, now=january + 40 * 86400, compiled=compiled).allowed


def test_a_time_of_a_grant_that_can_not_be_read_is_one_fault() -> None:
    document = GRANT_DOCUMENT.replace("2027-02-01T00:00:00Z", "soon")
    found = faults(ENTITLEMENT, document)
    assert len(found) == 1, found
    assert "`until` is not a time" in found[0]


def test_the_denial_names_what_to_ask_for() -> None:
    decision = decided(views())
    assert decision.remedy is not None
    assert decision.remedy.entitlement == "default/payments-db"


def test_nothing_is_named_where_a_deny_rule_or_another_clause_would_refuse_anyway() -> None:
    deny = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: never, namespace: default}
spec: {action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}
"""
    asked = request("POST", "/query", host="payments-db")
    assert decided(views(), asked=asked, compiled=snapshot(ENTITLEMENT, deny)).reason is Reason.DENY_POLICY
    conditioned = ENTITLEMENT.replace("require: {grant", 'condition: "false"\n    require: {grant')
    assert decided(views(), compiled=snapshot(conditioned)).reason is Reason.NO_MATCHING_POLICY


def test_an_entitlement_for_emergencies_only_is_named_to_those_who_may_use_it_then() -> None:
    text = ENTITLEMENT.replace("approvers: [{from:", "breakGlass: {who:").replace("}}]}]\n---", "}}]}\n---")
    compiled = snapshot(text)
    assert decided(views(), caller("boss"), compiled=compiled).reason is Reason.GRANT_REQUIRED
    assert decided(views(), caller("ann"), compiled=compiled).reason is Reason.NO_MATCHING_POLICY


def test_an_anonymous_caller_learns_nothing() -> None:
    open_to_all = ENTITLEMENT.replace(
        '{requestPrincipals: ["https://login.example/*"], namespaces: [default]}', "{notNamespaces: [elsewhere]}"
    )
    decision = decided(views(), identity(), compiled=snapshot(open_to_all))
    assert decision.reason is Reason.NO_MATCHING_POLICY


def test_login_and_grant_together_ask_for_the_login_first() -> None:
    text = ENTITLEMENT.replace("require: {grant", "require: {authentication: {acr: [phr]}, grant")
    compiled = snapshot(text)
    assert decided(views(), caller(acr="pwd"), compiled=compiled).reason is Reason.STEP_UP_REQUIRED
    assert decided(views(), caller(acr="phr"), compiled=compiled).reason is Reason.GRANT_REQUIRED
    assert decided(views(grant()), caller(acr="pwd"), compiled=compiled).reason is Reason.STEP_UP_REQUIRED
    assert decided(views(grant()), caller(acr="phr"), compiled=compiled).allowed


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (views(), "no grant"),
        (views(grant(until=NOW - 180)), "a grant that ended 180 s ago"),
        (views(grant(start=NOW + 30)), "a grant that begins in 30 s"),
        (views(grant(start=NOW + 30, until=NOW - 60)), "a grant that ended 60 s ago"),
        (views(grant(), stale=True), "the administrator has not been heard of for too long"),
    ],
)
def test_explain_says_which_grant_there_is_or_was(facts: FactViews, text: str) -> None:
    (clause,) = (
        clause for clause in snapshot(ENTITLEMENT).table.default_view.allow.rules[0].clauses if clause.cost == 60
    )
    assert isinstance(clause, GrantClause)
    inputs = Inputs(QUERY, caller(), STRICT, NOW, None, FactOpener(views=facts))
    assert text in clause.actual(inputs)
    assert clause.expected == "an active grant of `default/payments-db`"


@pytest.mark.parametrize(
    ("now", "text"),
    [("2027-02-01T00:03:00+00:00", "ended 180 s ago"), ("2026-12-31T23:59:30+00:00", "begins in 30 s")],
)
def test_explain_says_when_a_grant_of_a_document_counted(now: str, text: str) -> None:
    rules = snapshot(ENTITLEMENT, GRANT_DOCUMENT).table.default_view.allow.rules
    clause = next(clause for clause in rules[0].clauses if isinstance(clause, GrantClause))
    at = datetime.fromisoformat(now).timestamp()
    assert text in clause.actual(Inputs(QUERY, caller(), STRICT, at, None, FactOpener(views=NO_FACTS)))


def test_the_slot_publishes_grants_beside_other_views() -> None:
    slot = FactSlot()
    slot.replace_grants(Grants())
    assert slot.views.grants is not None
    slot.replace_networks(None)
    assert slot.views.grants is not None
    slot.replace_grants(None)
    assert slot.views is NO_FACTS


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("grant: payments-db", "grant: payment-db", "no AccessEntitlement `default/payment-db`; did you mean"),
        ("grant: payments-db", "grant: Payments DB", "is not the name of an AccessEntitlement"),
        ("  maxDuration: 4h\n", "", "has no `maxDuration`"),
        ("approvers: [{from:", "ask: [{from:", "unknown field `ask`"),
        ("name: payments-db,", "name: Payments_DB,", "the name can't be an entitlement's"),
        ("maxDuration: 4h", "maxDuration: 4h\n  reason: {pattern: '(a+'}", "`reason.pattern`: invalid regular"),
        ("maxDuration: 4h", "maxDuration: 4h\n  reason: {pattern: '(a{30}){30}'}", "`reason.pattern`: it repeats too"),
        ("maxDuration: 4h", "maxDuration: 4000h", "not a duration"),
        ("maxDuration: 4h", "maxDuration: 59s", "`59s`, not a duration from 1m to 2160h; write it like `1h30m`"),
        ("maxDuration: 4h", "maxDuration: 4h\n  maxOpen: 0", "from 1 to 1000; write a number from 1 to 1000"),
        ("maxDuration: 4h", "maxDuration: 4h\n  maxOpen: '5'", "from 1 to 1000; write it without quotes"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(old: str, new: str, fault: str) -> None:
    assert any(fault in text for text in faults(ENTITLEMENT.replace(old, new)))


def test_a_deny_policy_can_not_require_a_grant() -> None:
    text = ENTITLEMENT.replace("spec:\n  rules:\n  - name: just", "spec:\n  action: DENY\n  rules:\n  - name: just")
    assert any("would not deny callers that fail `require`" in fault for fault in faults(text))


def test_nobody_grants_what_another_namespace_guards() -> None:
    document = """
apiVersion: zta.dev/v1
kind: AccessGrant
metadata: {name: ann, namespace: NAMESPACE}
spec:
  entitlement: default/payments-db
  subject: {spiffeId: spiffe://cluster.local/ns/evil/sa/me}
  until: 2030-01-01T00:00:00Z
"""
    (fault,) = faults(ENTITLEMENT, document.replace("NAMESPACE", "evil"))
    assert "a document of namespace `evil` can't grant `default/payments-db`" in fault
    assert not faults(ENTITLEMENT, document.replace("NAMESPACE", "istio-system"))
    assert not faults(ENTITLEMENT, document.replace("NAMESPACE", "default"))
