"""Revocations that come while the service runs are in force for the next call, after every cache, and end as they came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import FRONTEND, ISSUER, NOW, Signer, presented, root
from tests.unit.authn.support import ISTIO, STRICT, accept, bearer, bundle, refusal, request, rule, verifier
from zta_authz.authn.revocation import DynamicRevocations, Revocations
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.model.request import Evidence

if TYPE_CHECKING:
    from zta_authz.authn.verify import IdentityVerifier

ROOT = root()
LEAF = ROOT.issue()
PEER = Evidence(FRONTEND, presented(LEAF))
TOKEN = Signer().token(jti="t1", sub="alice", sid="s1", email="Alice@Example.com")
BY_TOKEN = {
    "its id": (Revocation(Revoked.TOKEN, "t1", ISSUER), Revocation(Revoked.TOKEN, "t2", ISSUER)),
    "its subject": (Revocation(Revoked.SUBJECT, "alice", ISSUER), Revocation(Revoked.SUBJECT, "alice", "https://o")),
    "its session": (Revocation(Revoked.SESSION, "s1", ISSUER), Revocation(Revoked.SESSION, "s1", "https://o")),
    "its session, of any issuer": (Revocation(Revoked.SESSION, "s1"), Revocation(Revoked.SESSION, "S1")),
    "its email": (
        Revocation(Revoked.EMAIL, "alice@example.com", ISSUER),
        Revocation(Revoked.EMAIL, "alice@example.com", "https://o"),
    ),
    "its issuer": (Revocation(Revoked.ISSUER, ISSUER), Revocation(Revoked.ISSUER, "https://o")),
    "what was issued before": (
        Revocation(Revoked.SESSION, "s1", ISSUER, before=NOW - 59),
        Revocation(Revoked.SESSION, "s1", ISSUER, before=NOW - 60),
    ),
}


def subject(**changed: Any) -> tuple[IdentityVerifier, DynamicRevocations]:
    compiled = verifier(rule(), bundles=(bundle(ROOT.pem),), **changed)
    dynamic = DynamicRevocations()
    compiled.use_revocations(dynamic)
    return compiled, dynamic


@pytest.mark.parametrize(("bad", "good"), BY_TOKEN.values(), ids=BY_TOKEN.keys())
@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_cached_token_is_refused_from_the_next_call_on_until_the_revocation_is_lifted(
    bad: Revocation, good: Revocation, options: Any
) -> None:
    one, dynamic = subject(options=options)
    for _ in range(3):
        assert accept(one, bearer(TOKEN)).token is not None
    dynamic.put("r0", good)
    assert accept(one, bearer(TOKEN)).token is not None
    dynamic.put("r1", bad)
    for _ in range(2):
        assert refusal(one, bearer(TOKEN)) is Reason.TOKEN_REVOKED
    dynamic.remove("r1")
    assert accept(one, bearer(TOKEN)).token is not None


def test_a_cached_peer_is_refused_by_its_name_prefix_and_certificate() -> None:
    from cryptography.hazmat.primitives import hashes

    one, dynamic = subject()
    assert accept(one, request(), PEER).principal == FRONTEND
    for revocation in (
        Revocation(Revoked.SPIFFE_ID, FRONTEND),
        Revocation(Revoked.SPIFFE_PREFIX, "spiffe://cluster.local/ns/"),
        Revocation(Revoked.SERIAL, str(LEAF.serial_number)),
        Revocation(Revoked.SHA256, LEAF.fingerprint(hashes.SHA256()).hex()),
    ):
        dynamic.put("r", revocation)
        assert refusal(one, request(), PEER) is Reason.PEER_REVOKED
        dynamic.remove("r")
        assert accept(one, request(), PEER).principal == FRONTEND


def test_a_peer_that_no_revocation_was_about_is_refused_by_the_first_that_is() -> None:
    from cryptography.hazmat.primitives import hashes

    one, dynamic = subject()
    for number, (other, own) in enumerate(
        (
            (Revocation(Revoked.SPIFFE_ID, FRONTEND + "x"), Revocation(Revoked.SPIFFE_ID, FRONTEND)),
            (
                Revocation(Revoked.SPIFFE_PREFIX, "spiffe://a/"),
                Revocation(Revoked.SPIFFE_PREFIX, "spiffe://cluster.local/"),
            ),
            (Revocation(Revoked.SERIAL, "1"), Revocation(Revoked.SERIAL, str(LEAF.serial_number))),
            (Revocation(Revoked.SERIAL, "2"), Revocation(Revoked.SERIAL, str(ROOT.certificate.serial_number))),
            (Revocation(Revoked.SHA256, "ab"), Revocation(Revoked.SHA256, LEAF.fingerprint(hashes.SHA256()).hex())),
        )
    ):
        dynamic.put(f"other-{number}", other)
        for _ in range(2):
            assert accept(one, request(), PEER).principal == FRONTEND
        dynamic.put("own", own)
        assert refusal(one, request(), PEER) is Reason.PEER_REVOKED
        dynamic.remove("own")
        assert accept(one, request(), PEER).principal == FRONTEND


def test_a_revocation_that_begins_later_counts_from_its_time_on_although_the_caller_is_cached() -> None:
    one, dynamic = subject()
    dynamic.put("r1", Revocation(Revoked.SUBJECT, "alice", ISSUER, effective_from=NOW + 5))
    dynamic.put("r2", Revocation(Revoked.SPIFFE_ID, FRONTEND, effective_from=NOW + 5))
    for _ in range(2):
        assert accept(one, bearer(TOKEN)).token is not None
        assert accept(one, request(), PEER).principal == FRONTEND
    assert refusal(one, bearer(TOKEN), now=NOW + 5) is Reason.TOKEN_REVOKED
    assert refusal(one, request(), PEER, now=NOW + 5) is Reason.PEER_REVOKED


def test_each_change_and_each_instance_is_another_version() -> None:
    dynamic = DynamicRevocations()
    one, other = Revocations(), Revocations()
    one.use(dynamic)
    versions = [one.version, other.version]
    for change in (
        lambda: dynamic.put("a", Revocation(Revoked.TOKEN, "1")),
        lambda: dynamic.put("b", Revocation(Revoked.TOKEN, "2")),
        lambda: dynamic.put("b", Revocation(Revoked.TOKEN, "3")),
        lambda: dynamic.remove("a"),
        dynamic.clear,
    ):
        change()
        versions.append(one.version)
    assert len(set(versions)) == len(versions)


def test_a_revocation_ends_at_its_time() -> None:
    one, dynamic = subject()
    dynamic.put("r", Revocation(Revoked.SUBJECT, "alice", ISSUER), until=NOW + 10)
    assert refusal(one, bearer(TOKEN), now=NOW + 9.9) is Reason.TOKEN_REVOKED
    assert accept(one, bearer(TOKEN), now=NOW + 10).token is not None


def test_several_revocations_of_one_subject_do_not_lift_each_other() -> None:
    one, dynamic = subject()
    dynamic.put("r1", Revocation(Revoked.SUBJECT, "alice", ISSUER))
    dynamic.put("r2", Revocation(Revoked.SUBJECT, "alice", ISSUER, before=NOW))
    dynamic.remove("r1")
    assert refusal(one, bearer(TOKEN)) is Reason.TOKEN_REVOKED
    dynamic.put("r2", Revocation(Revoked.SUBJECT, "bob", ISSUER))
    assert accept(one, bearer(TOKEN)).token is not None, "r2 was replaced"
    assert len(dynamic) == 1


def test_a_reload_keeps_the_revocations_and_follows_them() -> None:
    before, dynamic = subject()
    dynamic.put("r1", Revocation(Revoked.SUBJECT, "alice", ISSUER))
    after = verifier(rule(), bundles=(bundle(ROOT.pem),))
    after.inherit_state(before)
    assert refusal(after, bearer(TOKEN)) is Reason.TOKEN_REVOKED
    dynamic.clear()
    assert accept(after, bearer(TOKEN)).token is not None
    dynamic.put("r2", Revocation(Revoked.SPIFFE_ID, FRONTEND))
    assert refusal(after, request(), PEER) is Reason.PEER_REVOKED


def test_a_full_view_keeps_only_what_it_contains() -> None:
    _, dynamic = subject()
    for name in ("r1", "r2", "r3"):
        dynamic.put(name, Revocation(Revoked.TOKEN, name))
    dynamic.clear(keep={"r2", "r9"})
    assert len(dynamic) == 1


def test_a_refusal_names_the_revocation_of_the_administrator() -> None:
    one, dynamic = subject()
    for what, asked, evidence in (
        (Revocation(Revoked.SUBJECT, "alice", ISSUER), bearer(TOKEN), Evidence()),
        (Revocation(Revoked.SPIFFE_ID, FRONTEND), request(), PEER),
    ):
        accept(one, asked, evidence)
        dynamic.put("r7", what)
        with pytest.raises(Refused) as caught:
            one.verify(asked, evidence, NOW)
        assert caught.value.revocation == "r7"
        dynamic.remove("r7")


def test_devices_are_revoked_for_one_inventory_or_for_all() -> None:
    dynamic, lists = DynamicRevocations(), Revocations()
    lists.use(dynamic)
    assert not lists.revokes_devices
    dynamic.put("r1", Revocation(Revoked.DEVICE, "d1", "shop/fleet"), until=NOW + 1)
    dynamic.put("r2", Revocation(Revoked.DEVICE, "d2"))
    assert lists.revokes_devices
    for inventory, device, revocation in (("shop/fleet", "d1", "r1"), ("shop/other", "d2", "r2")):
        with pytest.raises(Refused, match=revocation) as caught:
            dynamic.check_device(inventory, device, NOW)
        assert (caught.value.reason, caught.value.revocation) == (Reason.DEVICE_REVOKED, revocation)
    dynamic.check_device("shop/fleet", "d1", NOW + 1)
    dynamic.check_device("shop/other", "d1", NOW)
    dynamic.clear()
    assert not lists.revokes_devices


def test_an_unknown_id_is_removed_without_effect() -> None:
    _, dynamic = subject()
    dynamic.remove("never")
    assert len(dynamic) == 0
