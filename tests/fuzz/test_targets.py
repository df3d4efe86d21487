"""Each fuzz target notices when its invariant is broken: a fault is planted, and an input that meets it must fail."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import oracle
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS, certificates, check_request, policy_documents
from zta_authz.errors import DocumentErrors, Reason, SettingsErrors
from zta_authz.facts.address_lists import AddressSet
from zta_authz.model.decision import Decision, Verdict
from zta_authz.policy.rules.fact_clauses import FactClause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.facts import Fact
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.trust.signals import FactSignal


def _fails(name: str, seed: str) -> None:
    target = TARGETS[name]
    data = target.seeds()[seed]
    with pytest.raises((AssertionError, ZeroDivisionError)):
        target.hold(data)


@pytest.fixture
def _fresh_services() -> Iterator[None]:
    check_request.services.cache_clear()
    yield
    check_request.services.cache_clear()


@pytest.mark.usefixtures("_fresh_services")
def test_an_allow_that_the_decision_does_not_give_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def allow(*_: Any, **__: Any) -> Decision:
        return Decision(Verdict.ALLOW, Reason.ALLOW_POLICY)

    monkeypatch.setattr("zta_authz.authorizer.decide", allow)
    _fails("check_request", "denied-path")


@pytest.mark.usefixtures("_fresh_services")
def test_an_exception_while_deciding_is_noticed_though_it_is_answered_with_a_denial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Decision:
        raise ZeroDivisionError

    monkeypatch.setattr("zta_authz.authorizer.decide", fail)
    _fails("check_request", "allowed-peer")


@pytest.mark.usefixtures("_fresh_services")
def test_an_empty_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_request.ResponseEncoder, "encode", lambda *_: b"")
    _fails("check_request", "denied-path")


@pytest.mark.usefixtures("_fresh_services")
def test_a_client_s_header_of_ours_that_passes_in_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.model.changed_headers.GuardedNames.spoofed", lambda *_: ())
    _fails("check_request", "forged-headers")


@pytest.mark.usefixtures("_fresh_services")
def test_a_rule_that_is_read_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.pdp.decide._first_denial", lambda *_: None)
    _fails("check_request", "denied-path")


def test_rules_that_decide_otherwise_than_the_text_says_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_documents, "combine", lambda *_, **__: Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT))
    _fails("policy_documents", "rules")


def test_another_exception_than_a_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(policy_documents, "compile_snapshot", fail)
    _fails("policy_documents", "rules")


def test_faults_that_say_nothing_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise DocumentErrors([])

    monkeypatch.setattr(policy_documents, "compile_snapshot", refuse)
    _fails("policy_documents", "rules")

    def refuse_settings(*_: Any) -> None:
        raise SettingsErrors([])

    monkeypatch.setattr("tests.fuzz.targets.settings.load_settings", refuse_settings)
    _fails("settings", "full")


@pytest.mark.parametrize("seed", ["header-none", "payload-aud-list"])
def test_a_signature_that_is_not_checked_and_a_claim_that_is_not_judged_are_noticed(
    monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    target = TARGETS["tokens"]
    data = target.seeds()[seed].replace(b'"exp": 4102444800', b'"exp": 1700000000')
    target.hold(data)
    monkeypatch.setattr("zta_authz.authn.token_verifier.check_times", lambda *_, **__: None)
    monkeypatch.setattr("zta_authz.authn.jwt._check_header", lambda _: ("EdDSA", "k1"))
    with pytest.raises((AssertionError, KeyError)):
        target.hold(data)


def test_a_certificate_that_nobody_trusts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from zta_authz.authn.certificates import ValidityPeriod
    from zta_authz.authn.chain import CertificationPath

    monkeypatch.setattr(
        "zta_authz.authn.peers.find_path",
        lambda leaf, *_: CertificationPath(ValidityPeriod(float("-inf"), float("inf")), (leaf,)),
    )
    certificates.verifiers.cache_clear()
    try:
        _fails("certificates", "pem-stranger")
    finally:
        certificates.verifiers.cache_clear()


@pytest.mark.parametrize("seed", ["path-3", "path-10", "path-15"])
def test_a_path_that_evades_a_denial_is_noticed(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    monkeypatch.setattr("zta_authz.pdp.paths.path_ambiguity", lambda *_: "")
    _fails("ambiguity", seed)


def test_a_host_that_evades_a_denial_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.pdp.paths.plain_authority", lambda _: True)
    _fails("ambiguity", "host-4")


def test_a_key_that_is_too_weak_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.authn.keys.MIN_SECRET_BYTES", 1)
    monkeypatch.setattr("zta_authz.authn.keys._HMAC_BYTES", {"HS256": 1})
    _fails("jwks", "oct-short")


def test_an_input_that_takes_too_long_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.target.MAX_SECONDS", -1.0)
    with pytest.raises(AssertionError, match="CPU time"):
        Target("slow", "any", lambda _: None, dict).hold(b"x")


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("/%2561dmin", "/admin"),
        ("/x/../admin", "/admin"),
        ("//admin", "/admin"),
        ("/admin;x=1/y", "/admin/y"),
        ("\\x\\..\\admin", "/admin"),
        ("/a%2f..%2fadmin%00x", "/admin"),
        ("/caf%c3%a9", "/caf\u00e9"),
    ],
)
def test_upstreams_readings_of_a_path_include(path: str, other: str) -> None:
    assert other in oracle.spellings(path, rounds=4, limit=2000)


def test_a_call_of_a_peer_that_was_denied_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.grpc_h2.connection.Connection.deny", lambda *_: None)
    _fails("http2", "call-denied")


def test_bytes_that_mean_something_else_in_pieces_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.grpc_h2.reader.FrameReader._keep", lambda *_: None)
    _fails("http2", "calls-1")


def test_buffering_above_a_limit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.targets.http2.MAX_BUFFERED_BYTES", 500)
    _fails("http2", "large-1")


def test_an_answer_that_waits_though_its_windows_are_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.grpc_h2.outbound.Outbound.send_waiting", lambda *_: [])
    _fails("http2", "shut-window-5")


def test_a_device_that_is_listed_twice_and_is_known_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.facts.device_table._CONFLICTING", 0)
    _fails("inventories", "jsonl")


def test_an_unknown_fact_that_lets_an_allow_match_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def holds(clause: FactClause, inputs: Inputs, deny: bool) -> bool:
        fact = clause.read(inputs)
        return (
            deny if fact.unknown and not clause.negated else clause.comparison.accepts(fact.value) is not clause.negated
        )

    monkeypatch.setattr(FactClause, "holds", holds)
    _some_fails("facts")


def test_an_unknown_signal_that_costs_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.trust.signals.FactSignal.lost", _lost_if_false)
    _some_fails("facts")


def _lost_if_false(signal: FactSignal, inputs: Inputs) -> tuple[int, Fact] | None:
    fact = signal.read(inputs)
    return (signal.points, fact) if fact.value is False else None


def test_a_lift_that_is_not_the_smallest_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.property.fact_invariants.smallest_lift", lambda _, assessment, __: assessment.lost)
    _some_fails("facts")


def test_a_database_whose_damage_is_no_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.facts.databases.InvalidDatabaseError", KeyError)
    with pytest.raises(ValueError, match="metadata"):
        TARGETS["network_files"].hold(b"\0")


def test_a_country_that_is_no_country_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.facts.networks._COUNTRY", re.compile(".*"))
    data = TARGETS["network_files"].seeds()["country-4"].replace(b"BDE", b"Bde")
    with pytest.raises(AssertionError):
        TARGETS["network_files"].hold(data)


def test_a_list_whose_wrong_lines_are_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.targets.network_files.parse_address_list", lambda *_: AddressSet([]))
    _fails("network_files", "list-wrong")


def _some_fails(name: str) -> None:
    """One of the seeds has to fail."""
    inputs = TARGETS[name].seeds().values()
    with pytest.raises(AssertionError):
        any(TARGETS[name].hold(data) for data in inputs)
