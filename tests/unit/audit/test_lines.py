"""Lines that are joined from known pieces are those that their records would be encoded to."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from zta_authz.audit.lines import LineEncoder
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import MAX_TEXT_CHARACTERS, encode_line, make_record
from zta_authz.audit.sinks import capture
from zta_authz.errors import Reason
from zta_authz.model.decision import NO_RESPONSE, Decision, Disagreement, Response, Shadow, Verdict
from zta_authz.model.identity import NO_CHANGES, ApiClient, Binding, Changes, Identity, Peer, PeerTrust, Token
from zta_authz.model.request import Address, Headers, RequestAttributes

NOW = 1_700_000_000.25
NO_MASKS = Masker(())

texts = st.sampled_from(
    ["", "a", "/orders/7?token=1", "/#x?", '"\\', "\n\x7f", "é", "\udc80", "\U0001f600" * 3]
) | st.text(max_size=8)
peers = st.sampled_from([None, *(Peer((name,), None, PeerTrust.PROXY) for name in ("a", "b", "é", ""))])
tokens = st.sampled_from(
    [None, Token("https://a", "alice", {}), Token("https://a", "bob", {}), Token("", "\udc80", {})]
)
changes = st.sampled_from([NO_CHANGES, Changes((("x-user", "alice"),), ("authorization",), ("token",))])
identities = st.builds(
    Identity,
    peer=peers,
    token=tokens,
    tokens=st.just(()),
    changes=changes,
    binding=st.sampled_from([None, None, None, Binding.DPOP]),
    api_client=st.sampled_from([None, None, None, ApiClient("shop")]),
)
decisions = st.builds(
    lambda **fields: Decision(**fields),  # noqa: PLW0108  its annotations can't be resolved
    verdict=st.sampled_from(Verdict),
    reason=st.sampled_from([Reason.ALLOW_POLICY, Reason.DENY_POLICY, Reason.TOKEN_EXPIRED]),
    policy=st.sampled_from(["", "default/a", "default/é"]),
    rule=st.sampled_from([None, 0, 1]),
    rule_name=st.sampled_from(["", "", "by-name", "other-name"]),
    identity=identities,
    detail=st.sampled_from(["", "", "", "detail"]),
    response=st.sampled_from([NO_RESPONSE, Response((("x-tier", "gold"),), ("x-debug",))]),
    shadows=st.sampled_from([(), (), (Shadow("AUDIT", "default/watch", 0, dry_run=False),)]),
    disagreement=st.sampled_from([None, None, Disagreement(Verdict.DENY, Reason.DENY_POLICY, "default/b", 1)]),
)
addresses = st.sampled_from([Address(), Address("10.0.0.1", 1), Address("::1", 8080), Address("é", 1)])
trace_parents = st.sampled_from(["", "secret", f"00-{'a1' * 16}-{'b' * 16}-01"])
requests = st.builds(
    lambda trace_parent, **fields: RequestAttributes(
        headers=Headers({"traceparent": (trace_parent,)} if trace_parent else {}, exact=True), **fields
    ),
    trace_parents,
    method=texts,
    path=texts,
    host=texts,
    source=addresses,
    destination=addresses,
    request_id=texts,
)
times = st.sampled_from([0.0, 1.0, NOW - 1, NOW, NOW + 0.0000123, 999_999_999.9999999]) | st.floats(0, 2e9)
calls = st.tuples(
    requests, decisions, st.sampled_from([DECISION_ID, "é"]), times, times, st.sampled_from(["d", "é", ""])
)


@given(st.lists(calls, max_size=8))
def test_a_line_has_the_bytes_of_its_record_whatever_was_made_before_it(made: list[tuple[object, ...]]) -> None:
    maker = LineEncoder(NO_MASKS)
    for call in [*made, *made]:  # known pieces are used the second time
        note = capture(*call)  # type: ignore[arg-type]
        assert maker.line(note) == encode_line(make_record(note))


@pytest.mark.parametrize("where", ["method", "path", "host", "request_id"])
def test_long_texts_are_cut_as_in_records(where: str) -> None:
    maker = LineEncoder(NO_MASKS)
    note = capture(replace(attributes(), **{where: "x" * (MAX_TEXT_CHARACTERS + 1)}), allow(), DECISION_ID, NOW)
    assert maker.line(note) == encode_line(make_record(note))


def test_a_new_object_is_not_taken_for_an_old_one_at_its_place_in_memory() -> None:
    maker = LineEncoder(NO_MASKS)
    for number in range(300):
        request = replace(attributes(), source=Address("10.0.0.1", number))
        peer, token = Peer((f"peer-{number}",), None, PeerTrust.PROXY), Token("https://a", f"user-{number}", {})
        identity = Identity(peer, token, changes=Changes(remove_headers=(f"header-{number}",)))
        line = maker.line(capture(request, replace(allow(), identity=identity), DECISION_ID, NOW))
        assert b'"10.0.0.1:%d"' % number in line
        assert b'"peer-%d"' % number in line
        assert b'"user-%d"' % number in line
        assert b'"header-%d"' % number in line


def test_masked_fields_are_masked_in_each_line() -> None:
    maker = LineEncoder(
        Masker([MaskRule(Maskable.PATH, MaskAction.DROP), MaskRule(Maskable.SOURCE, MaskAction.TRUNCATE)])
    )
    for decision in (allow(), deny()):
        line = maker.line(capture(replace(attributes(), path="/patients/7"), decision, DECISION_ID, NOW))
        assert b"patients" not in line
        assert b'"path":""' in line
        assert b"secret detail" not in line
