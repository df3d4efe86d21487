"""Shadow policies decide the same request and identity, and only if policies decided it before."""

from __future__ import annotations

import pytest

from tests.support.policies import identity, operation, policy, request, source
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.model.decision import Decision, Disagreement, Verdict
from zta_authz.model.options import Options
from zta_authz.pdp.shadow import BY_POLICY, decide_again, disagreement
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
ALLOWED = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, "default/old", 0, identity(FRONTEND))


def shadow(*documents: dict[str, object]) -> Snapshot:
    import json

    return compile_snapshot(
        [SourceText("s.yaml", "\n---\n".join(json.dumps(document) for document in documents))], Options()
    )


def test_shadow_policies_decide_with_the_verified_identity() -> None:
    only_frontend = shadow(policy("new", source(principals=["cluster.local/ns/default/sa/frontend"])))
    other = decide_again(only_frontend, ALLOWED, request(), 1.0)
    assert other is not None
    assert (other.allowed, other.policy) == (True, "default/new")
    anonymous = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, "default/old", 0, identity())
    again = decide_again(only_frontend, anonymous, request(), 1.0)
    assert again is not None
    assert not again.allowed


def test_a_disagreement_names_the_other_verdict_and_its_rule() -> None:
    other = decide_again(shadow(policy("no", operation(paths=["/a"]), action="DENY")), ALLOWED, request(path="/a"), 1.0)
    assert other is not None
    assert disagreement(ALLOWED, other) == Disagreement(Verdict.DENY, Reason.DENY_POLICY, "default/no", 0)


def test_the_same_verdict_by_another_policy_is_not_a_disagreement() -> None:
    other = decide_again(shadow(policy("new", {})), ALLOWED, request(), 1.0)
    assert other is not None
    assert other.policy == "default/new"
    assert disagreement(ALLOWED, other) is None


@pytest.mark.parametrize("reason", sorted(set(DENIAL_RESPONSES) - BY_POLICY))
def test_a_request_refused_before_the_rules_is_not_decided_again(reason: Reason) -> None:
    refused = Decision(Verdict.DENY, reason)
    assert decide_again(shadow(policy("new", {})), refused, request(), 1.0) is None
