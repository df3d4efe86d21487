"""A challenge is given only if the same request with the login that it asks for is allowed, for random policies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings, strategies as st

from tests.support.policies import identity, request, snapshot
from zta_authz.errors import DocumentErrors, Reason
from zta_authz.pdp.decide import Caller, decide

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.pdp.snapshot import Snapshot

NOW = 1_800_000_000.0
ACR = ("pwd", "phr", "phrh", "gold")
ISSUERS = ("https://a", "https://b")
acrs = st.lists(st.sampled_from(ACR), min_size=1, max_size=3, unique=True)
requirements = st.fixed_dictionaries(
    {},
    optional={
        "acr": acrs,
        "acrAtLeast": st.integers(1, 3),
        "amr": st.just(["hwk"]),
        "maxAge": st.sampled_from(("1m", "10m", "2h")),
    },
).filter(bool)
when = st.sampled_from(
    (
        {"key": "request.auth.claims[acr]", "values": ["phr"]},
        {"key": "request.auth.claims[acr]", "notValues": ["phrh"]},
        {"key": "request.auth.claims[role]", "values": ["admin"]},
        {"key": "request.auth.claims[iss]", "values": [ISSUERS[0]]},
    )
)
conditions = st.sampled_from(
    ("claims.acr != 'gold'", "has(claims.auth_time)", "claims.role == 'admin'", "claims.auth_time > 5")
)
rules = st.fixed_dictionaries(
    {"require": st.builds(lambda wanted: {"authentication": wanted}, requirements)},
    optional={
        "when": st.lists(when, min_size=1, max_size=2),
        "condition": conditions,
        "to": st.sampled_from(([{"operation": {"methods": ["GET"]}}], [{"operation": {"methods": ["POST"]}}])),
    },
)
denying = st.fixed_dictionaries({"when": st.lists(when, min_size=1, max_size=2)}, optional={"condition": conditions})
levels = st.dictionaries(st.sampled_from(ACR), st.integers(0, 3), min_size=1)
logins = st.fixed_dictionaries(
    {"iss": st.sampled_from(ISSUERS), "sub": st.just("ann")},
    optional={
        "acr": st.sampled_from(("pwd", "gold", "phr", "", 2, None)),
        "amr": st.sampled_from((["hwk"], ["pwd"], "hwk")),
        "auth_time": st.sampled_from((int(NOW), int(NOW) - 300, int(NOW) - 9000, int(NOW) + 900, str(int(NOW)), NOW)),
        "role": st.sampled_from(("admin", "user")),
    },
)


def document(kind: str, name: str, spec: dict[str, Any]) -> str:
    metadata = {"name": name, "namespace": "default"}
    return json.dumps({"apiVersion": "zta.dev/v1", "kind": kind, "metadata": metadata, "spec": spec})


def decided(compiled: Snapshot, claims: dict[str, Any], spare: dict[str, Any] | None) -> Decision:
    caller = identity(claims=claims)
    if spare is not None:
        other = identity(claims=spare)
        caller = type(caller)(None, caller.token, (*caller.tokens, *other.tokens))
    return decide(compiled, request(), Caller(caller), NOW)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(rules, min_size=1, max_size=4),
    st.lists(denying, max_size=1),
    st.lists(levels, min_size=2, max_size=2),
    logins,
    st.none() | logins,
)
def test_a_challenge_always_leads_in(
    allow: list[dict[str, Any]],
    deny: list[dict[str, Any]],
    acr_levels: list[dict[str, int]],
    claims: dict[str, Any],
    spare: dict[str, Any] | None,
) -> None:
    texts = [document("AccessPolicy", "allow", {"rules": allow})]
    if deny:
        texts.append(document("AccessPolicy", "deny", {"action": "DENY", "rules": deny}))
    texts += [
        document("IssuerPolicy", f"i{number}", {"issuer": issuer, "acrLevels": by_name})
        for number, (issuer, by_name) in enumerate(zip(ISSUERS, acr_levels, strict=True))
    ]
    try:
        compiled = snapshot(*texts)
    except DocumentErrors:
        return
    decision = decided(compiled, claims, spare)
    if decision.reason is not Reason.STEP_UP_REQUIRED:
        assert decision.remedy is None
        return
    remedy = decision.remedy
    assert remedy is not None
    assert remedy.acr or remedy.max_age is not None
    for acr in remedy.acr or (None,):
        after = {**claims} if acr is None else {**claims, "acr": acr}
        if remedy.max_age is not None:
            after["auth_time"] = int(NOW)
        assert decided(compiled, after, spare).allowed
