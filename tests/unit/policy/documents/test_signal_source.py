"""SignalSource documents: what they say, and every fault at its place."""

from __future__ import annotations

import pytest

from tests.support.policies import faults, snapshot, warnings
from zta_authz.model.signal_documents import (
    DEFAULT_ACTIONS,
    Delivery,
    EventKind,
    OpaqueAs,
    SignalAction,
    SignalSource,
    SubjectMapping,
)  # fmt: skip

IDP = "https://idp.example.com/realms/shop"
HEAD = "apiVersion: zta.dev/v1\nkind: SignalSource\nmetadata: {name: idp, namespace: istio-system}\nspec:\n"
GOOD = f"  issuer: {IDP}\n"
FLEET = (
    "apiVersion: zta.dev/v1\nkind: DeviceInventory\nmetadata: {name: fleet, namespace: istio-system}\n"
    "spec: {source: {file: d.jsonl}, id: id, identify: {tokenClaim: d}}\n"
)


def source(spec: str) -> SignalSource:
    [only] = snapshot(HEAD + spec, FLEET).signal_sources
    return only


def test_an_issuer_alone_is_a_whole_document() -> None:
    made = source(GOOD)
    assert (made.full_name, made.issuer, made.delivery) == ("istio-system/idp", IDP, Delivery.POLL)
    assert made.subjects == SubjectMapping((IDP,))
    assert made.actions == DEFAULT_ACTIONS
    assert (made.max_silence, made.max_subjects, made.max_token_life) == (600.0, 1000, 30 * 86400.0)
    assert (made.jwks_uri, made.discovery, made.endpoint, made.audiences, made.tenant) == ("", "", "", (), "")


def test_every_field_is_read() -> None:
    made = source(
        GOOD
        + "  jwksUri: https://idp.example.com/keys\n  discovery: https://idp.example.com/ssf\n"
        + "  delivery: poll\n  endpoint: https://idp.example.com/poll\n  audience: [a, b]\n"
        + "  tokenIssuers: [https://idp.example.com/oauth2/shop]\n"
        + "  subjects:\n    iss_sub: direct\n    email: {claim: email}\n    session: {claim: sid}\n"
        + "    device: {inventory: fleet}\n    opaque: subject\n    spiffeId: direct\n"
        + "  act: {session-revoked: ignore, credential-change: {revoke: [create, delete]}}\n"
        + "  maxSilence: 1h\n  maxSubjects: 5\n  maxTokenLife: 24h\n  tenant: t-1\n"
    )
    assert made.subjects == SubjectMapping(
        ("https://idp.example.com/oauth2/shop",), "email", "sid", "istio-system/fleet", OpaqueAs.SUBJECT, True
    )
    assert made.actions == {**DEFAULT_ACTIONS, EventKind.SESSION_REVOKED: SignalAction.IGNORE}
    assert made.change_types == {"create", "delete"}
    assert (made.jwks_uri, made.discovery) == ("https://idp.example.com/keys", "https://idp.example.com/ssf")
    assert (made.endpoint, made.audiences, made.tenant) == ("https://idp.example.com/poll", ("a", "b"), "t-1")
    assert (made.max_silence, made.max_subjects, made.max_token_life) == (3600.0, 5, 86400.0)


def test_sessions_can_be_left_out() -> None:
    assert source(GOOD + "  subjects: {session: none}\n").subjects.session_claim == ""


def test_one_audience_needs_no_list() -> None:
    assert source(GOOD + "  audience: a\n").audiences == ("a",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (GOOD + "  color: red\n", "unknown field `color`"),
        ("  delivery: poll\n", "SignalSource.spec has no `issuer`"),
        ("  issuer: my-idp\n", "`issuer` is not a URL, so the transmitter's metadata can't be found; add `discovery`"),
        ("  issuer: my-idp\n  jwksUri: https://a.example\n", "`issuer` is not a URL"),
        (GOOD + "  jwksUri: file:///etc/passwd\n", "`jwksUri` is not an HTTP or HTTPS URL"),
        (GOOD + "  discovery: idp.example.com\n", "`discovery` is not an HTTP or HTTPS URL"),
        (GOOD + "  endpoint: ftp://x\n  audience: a\n", "`endpoint` is not an HTTP or HTTPS URL"),
        (GOOD + "  endpoint: https://idp.example.com/poll\n", "its `audience` must be known; add `audience`"),
        (GOOD + "  delivery: push\n  endpoint: https://a.example\n", "`endpoint` has no effect with `delivery: push`"),
        (GOOD + "  delivery: pull\n", "`pull` is not a `delivery`; one of poll, push"),
        (GOOD + "  audience: []\n", "`audience` is an empty list"),
        (GOOD + "  audience: [" + ", ".join("a" * 11) + "]\n", "`audience` has 11 entries, more than 10"),
        (GOOD + "  tokenIssuers: [" + ", ".join("a" * 11) + "]\n", "`tokenIssuers` has 11 entries, more than 10"),
        (GOOD + "  subjects: {iss_sub: claim}\n", "`claim` is not a `iss_sub`; write `direct`"),
        (GOOD + "  subjects: {email: direct}\n", "`email` is a string where a mapping"),
        (GOOD + "  subjects: {email: {}}\n", "`email` has no `claim`"),
        (GOOD + "  subjects: {email: {claim: mail}}\n", "`mail` with events, so nothing would be revoked; write `email`"),
        (GOOD + "  subjects: {session: {claim: session_state}}\n", "nothing would be revoked; write `sid`, or leave `session`"),
        (GOOD + "  subjects: {session: direct}\n", "`direct` is not a `session`; write `none`"),
        (GOOD + "  subjects: {session: {claim: ''}}\n", "`claim` is empty"),
        (GOOD + "  subjects: {device: {inventory: a/b/c}}\n", "`a/b/c` is not a name; write NAME or NAMESPACE/NAME"),
        (GOOD + "  subjects: {device: {inventory: laptops}}\n", "DeviceInventory `istio-system/laptops`, which does not exist"),
        (GOOD + "  subjects: {opaque: user}\n", "`user` is not a `opaque`; one of session, subject"),
        (GOOD + "  subjects: {phone: direct}\n", "unknown field `phone` in subjects"),
        (GOOD + "  act: {session-revoke: revoke}\n", "unknown field `session-revoke` in act; did you mean `session-revoked`?"),
        (GOOD + "  act: {account-enabled: revoke}\n", "unknown field `account-enabled` in act"),
        (GOOD + "  act: {session-revoked: trust}\n", "`trust` is not an action of `session-revoked`; one of revoke, ignore"),
        (GOOD + "  act: {risk-level-change: revoke}\n", "`revoke` is not an action of `risk-level-change`; one of trust, ignore"),
        (GOOD + "  act: {device-compliance-change: trust}\n", "is not an action of `device-compliance-change`; one of device, ignore"),
        (GOOD + "  act: {credential-change: {revoke: [replace]}}\n", "`replace` is not a change type of a credential"),
        (GOOD + "  act: {credential-change: {revoke: []}}\n", "`revoke` is an empty list"),
        (GOOD + "  act: {credential-change: {trust: [update]}}\n", "unknown field `trust` in credential-change"),
        (GOOD + "  maxSilence: never\n", "`maxSilence` is `never`, not a duration"),
        (GOOD + "  maxTokenLife: 9601h\n", "`maxTokenLife` is `9601h`, not a duration from 1ms to 9600h"),
        (GOOD + "  maxSubjects: 0\n", "`maxSubjects` is not a whole number from 1 to 1000000"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + spec, FLEET))


def test_a_name_that_kubernetes_would_refuse_is_a_fault() -> None:
    for name in ("my idp", "Idp", "a" * 254, "ïdp"):
        assert "is not a Kubernetes name" in "\n".join(faults(HEAD.replace("name: idp", f"name: '{name}'") + GOOD))


def test_two_sources_for_one_issuer_are_a_fault() -> None:
    [fault] = faults(HEAD + GOOD, HEAD.replace("idp", "again") + GOOD)
    assert fault.startswith("b.yaml:5:11: SignalSource `istio-system/idp` is for the same issuer")


def test_an_issuer_whose_tokens_nobody_accepts_causes_a_warning() -> None:
    jwt = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt}\n"
        f"spec: {{jwtRules: [{{issuer: '{IDP}', jwksUri: 'https://idp.example.com/keys'}}]}}\n"
    )
    assert warnings(HEAD + GOOD, jwt) == []
    [warning] = warnings(HEAD + GOOD + "  tokenIssuers: [https://other.example]\n", jwt)
    assert "is about the tokens of `https://other.example`, which no RequestAuthentication names" in warning
