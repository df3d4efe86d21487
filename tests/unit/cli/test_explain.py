from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.check_requests import check_request
from tests.support.pki import NOW, Profile, Signer, jwks, pem, root
from tests.support.policies import operation, policy, source, when
from zta_authz.cli import main
from zta_authz.cli.decision_output import time_text

if TYPE_CHECKING:
    from collections.abc import Callable

FRONTEND = "spiffe://cluster.local/ns/default/sa/frontend"
SHOP = policy("shop", {**source(principals=["cluster.local/ns/default/sa/frontend"]), **operation(methods=["GET"])})
NO_ADMIN = policy("no-admin", operation(paths=["/admin*"]), action="DENY")
ANN = {"iss": "https://iss", "sub": "ann"}
AT = ["--at", time_text(NOW)]
EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


@pytest.fixture
def explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Explains a request by policies; the status and what JSON says."""
    monkeypatch.chdir(tmp_path)

    def run(request: dict[str, Any] | str, *documents: dict[str, Any], arguments: tuple[str, ...] = ()) -> Any:
        text = request if isinstance(request, str) else json.dumps(request)
        Path("request.yaml").write_text(text)
        Path("policies.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents))
        known = ["--policies", "policies.yaml", "--request", "request.yaml", "--output", "json"]
        status = main(["explain", *known, *arguments])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_an_allow_names_its_rule_and_ends_with_status_0(explain: Any) -> None:
    status, answer = explain({"method": "GET", "principal": FRONTEND}, NO_ADMIN, SHOP, arguments=tuple(AT))
    assert (status, answer["verdict"], answer["reason"]) == (0, "allow", "allow_policy")
    assert (answer["policy"], answer["rule"]) == ("default/shop", 0)
    assert answer["places"] == [{"source": "policies.yaml", "line": 3}]
    assert answer["identity"] == {
        "principal": FRONTEND,
        "trust": "assumed",
        "requestPrincipal": None,
        "tokenPolicy": None,
        "assumed": ["principal"],
    }
    assert (answer["apiVersion"], answer["kind"], answer["at"]) == ("zta.dev/v1", "Explanation", time_text(NOW))


def test_a_denial_lists_the_failed_clauses_and_exits_with_1(explain: Any) -> None:
    status, answer = explain({"method": "PUT", "principal": FRONTEND}, SHOP)
    assert (status, answer["verdict"], answer["reason"]) == (1, "deny", "no_matching_policy")
    (miss,) = answer["nearest"]
    assert (miss["policy"], miss["rule"], miss["places"]) == (
        "default/shop",
        0,
        [{"source": "policies.yaml", "line": 1}],
    )
    assert miss["failed"] == ["methods: saw `PUT`, rule has `GET`"]


def test_a_deny_rule_is_shown_with_its_location(explain: Any) -> None:
    status, answer = explain({"path": "/admin/x", "principal": FRONTEND}, SHOP, NO_ADMIN)
    assert (status, answer["reason"], answer["policy"]) == (1, "deny_policy", "default/no-admin")
    assert answer["places"] == [{"source": "policies.yaml", "line": 3}]


def test_policies_that_share_a_name_are_both_located(explain: Any) -> None:
    access = {**SHOP, "apiVersion": "zta.dev/v1", "kind": "AccessPolicy"}
    _, answer = explain({"principal": FRONTEND}, SHOP, access)
    assert sorted(place["line"] for place in answer["places"]) == [1, 3]


def test_without_a_principal_nobody_is_assumed(explain: Any) -> None:
    status, answer = explain({"method": "GET"}, SHOP)
    assert (status, answer["identity"]["principal"], answer["identity"]["assumed"]) == (1, None, [])


def test_an_invalid_assumed_principal_is_refused_by_the_core(explain: Any) -> None:
    status, answer = explain({"principal": "spiffe://UPPER/x"}, SHOP)
    assert (status, answer["reason"]) == (1, "peer_spiffe_id_invalid")


def test_istio_semantics_accept_other_names(explain: Any) -> None:
    any_peer = policy("any", source(principals=["*"]))
    status, answer = explain({"principal": "client.example"}, any_peer, arguments=("--semantics", "istio"))
    assert (status, answer["identity"]["principal"]) == (0, "client.example")


def test_a_principal_can_be_assumed_where_certificates_are_required(explain: Any) -> None:
    Path("settings.yaml").write_text("peer: {verify_certificate: required}\n")
    config = ("--config", "settings.yaml")
    assert explain({"principal": FRONTEND}, SHOP, arguments=config)[0] == 0
    status, answer = explain({"method": "GET"}, SHOP, arguments=config)
    assert (status, answer["reason"]) == (1, "peer_certificate_missing")


def bundle(text: str) -> dict[str, Any]:
    return {
        "apiVersion": "zta.dev/v1",
        "kind": "TrustBundle",
        "metadata": {"name": "b"},
        "spec": {"trustDomain": "cluster.local", "x509Authorities": text},
    }


def test_a_certificate_is_verified_and_nothing_is_assumed(explain: Any) -> None:
    authority = root()
    Path("leaf.pem").write_text(pem(authority.issue(Profile(uris=(FRONTEND,)))))
    request = {"principal": FRONTEND, "certificate": "leaf.pem"}
    status, answer = explain(request, SHOP, bundle(authority.pem), arguments=tuple(AT))
    assert (status, answer["identity"]["trust"], answer["identity"]["assumed"]) == (0, "certificate", [])
    status, answer = explain(request, SHOP, bundle(root("another").pem), arguments=tuple(AT))
    assert (status, answer["reason"]) == (1, "peer_certificate_untrusted")


def test_the_time_of_the_decision_can_be_chosen(explain: Any) -> None:
    authority = root()
    request = {"certificate": pem(authority.issue(Profile(uris=(FRONTEND,))))}
    for at, reason in ((NOW, "allow_policy"), (NOW + 1e8, "peer_certificate_expired")):
        assert explain(request, SHOP, bundle(authority.pem), arguments=("--at", time_text(at)))[1]["reason"] == reason


def authentication(**rule: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens"},
        "spec": {"jwtRules": [{"issuer": "https://iss", "jwks": jwks(), **rule}]},
    }


BY_TOKEN = policy("by-token", source(requestPrincipals=["https://iss/ann"]))


def test_a_token_is_verified(explain: Any) -> None:
    request = {"token": Signer().token(iss="https://iss", sub="ann")}
    status, answer = explain(request, BY_TOKEN, authentication(), arguments=tuple(AT))
    assert (status, answer["identity"]["requestPrincipal"]) == (0, "https://iss/ann")
    assert (answer["identity"]["tokenPolicy"], answer["identity"]["assumed"]) == ("default/tokens", [])


def test_a_token_is_never_shown(explain: Any) -> None:
    token = Signer().token(iss="https://other", sub="ann")
    status, answer = explain({"token": token}, BY_TOKEN, authentication(), arguments=tuple(AT))
    assert (status, answer["reason"]) == (1, "token_issuer_unknown")
    assert token not in json.dumps(answer)


def test_claims_are_assumed_to_be_verified_and_marked(explain: Any) -> None:
    status, answer = explain({"claims": ANN}, BY_TOKEN, authentication())
    assert (status, answer["identity"]["requestPrincipal"]) == (0, "https://iss/ann")
    assert (answer["identity"]["assumed"], answer["notes"]) == (["claims"], [])


@pytest.mark.parametrize("semantics", ["strict", "istio"])
def test_assumed_claims_stand_for_the_token_that_their_issuers_rule_requires(explain: Any, semantics: str) -> None:
    required = authentication(presence="REQUIRED")
    arguments = ("--semantics", semantics)
    assert explain({"claims": ANN}, BY_TOKEN, required, arguments=arguments)[0] == 0
    for request in ({"method": "GET"}, {"claims": {"iss": "https://other", "sub": "ann"}}):
        status, answer = explain(request, BY_TOKEN, required, arguments=arguments)
        assert (status, answer["reason"]) == (1, "token_missing")


def test_claims_of_an_issuer_that_nothing_verifies_get_a_note(explain: Any) -> None:
    _, answer = explain({"claims": ANN}, BY_TOKEN)
    assert "no RequestAuthentication here accepts issuer `https://iss`" in answer["notes"][0]


def test_assumed_claims_are_split_as_the_issuers_rule_says(explain: Any) -> None:
    by_group = policy("p", when("request.auth.claims[groups]", "staff"))
    request = {"claims": {**ANN, "groups": "staff admins"}}
    assert explain(request, by_group, authentication())[0] == 1
    assert explain(request, by_group, authentication(spaceDelimitedClaims=["groups"]))[0] == 0
    assert explain({"claims": {"iss": "x", "groups": "staff b"}}, by_group, authentication())[0] == 1


def test_a_presented_token_that_is_bad_counts_beside_assumed_claims(explain: Any) -> None:
    request = {"claims": ANN, "headers": {"authorization": "Bearer junk"}}
    assert explain(request, BY_TOKEN, authentication())[1]["reason"] == "token_malformed"


def test_a_recorded_check_request_is_recognised(
    explain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain({}, SHOP)
    (tmp_path / "recorded").write_bytes(check_request([("x-a", b"\xff")]).SerializeToString())
    known = ["explain", "--policies", "policies.yaml", "--request", "recorded", "--output", "json"]
    assert main([*known, "--semantics", "istio"]) == 0
    assert json.loads(capsys.readouterr().out)["identity"]["trust"] == "proxy"
    assert main(known) == 1  # in strict reading the proxy's word is not enough, and nothing is assumed of a recording


def test_a_file_without_a_check_request_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policies.yaml").write_text(json.dumps(SHOP))
    (tmp_path / "request").write_text("method: GET\n")
    arguments = ["--policies", str(tmp_path / "policies.yaml"), "--request", str(tmp_path / "request"), "--binary"]
    assert main(["explain", *arguments]) == 2
    assert "CheckRequest" in capsys.readouterr().err


def test_a_request_can_come_from_standard_input(explain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    explain({}, SHOP)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"principal: {FRONTEND}".encode())))
    assert main(["explain", "--policies", "policies.yaml", "--request", "-"]) == 0


def test_faults_of_policies_and_request_are_reported_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policies.yaml").write_text("kind: x\n")
    (tmp_path / "request.yaml").write_text("methd: GET\n")
    names = ["--policies", str(tmp_path / "policies.yaml"), "--request", str(tmp_path / "request.yaml")]
    assert main(["explain", *names]) == 2
    err = capsys.readouterr().err
    assert "the document has no `apiVersion`" in err
    assert "request.yaml:1:1: unknown field `methd` in a request; did you mean `method`?" in err


def test_faults_are_printed_as_json_if_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--policies", "none", "--request", str(tmp_path / "none"), "--output", "json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "Faults"
    assert len(answer["faults"]) == 2


@pytest.mark.parametrize("time", ["yesterday", "2027-01-01", "2027-01-01T00:00:00"])
def test_a_time_needs_its_offset(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--request", "x", "--at", time])
    assert ended.value.code == 2
    assert "RFC 3339" in capsys.readouterr().err


def test_rules_that_match_without_deciding_are_listed(explain: Any) -> None:
    audit = policy("watch", operation(methods=["GET"]), action="AUDIT")
    _, answer = explain({"principal": FRONTEND}, SHOP, audit)
    assert answer["matchedWithoutDeciding"] == [
        {"action": "AUDIT", "policy": "default/watch", "rule": 0, "ruleName": None, "dryRun": False}
    ]


def test_a_workload_without_allow_rules_is_noted(explain: Any) -> None:
    shop = policy("shop", {}, namespace="default")
    _, answer = explain({"principal": FRONTEND}, shop, arguments=("--namespace", "other", "--label", "app=x"))
    assert answer["notes"] == ["no ALLOW rule selects this workload (namespace `other`, labels: app=x)"]


def test_a_caller_must_be_a_spiffe_id(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--request", "-", "--caller", "envoy"])
    assert ended.value.code == 2
    assert "--caller: a SPIFFE ID starts with `spiffe://`" in capsys.readouterr().err


def test_the_caller_option_selects_the_workload_of_a_shared_authorizer(explain: Any) -> None:
    Path("settings.yaml").write_text(
        "workloads: [{principal: spiffe://cluster.local/ns/default/sa/shop, namespace: default}]\n"
    )
    config = ("--config", "settings.yaml")
    request = {"principal": FRONTEND, "caller": "spiffe://cluster.local/ns/default/sa/shop"}
    assert explain(request, SHOP, arguments=config)[0] == 0
    request["caller"] = "spiffe://cluster.local/ns/default/sa/other"
    assert explain(request, SHOP, arguments=config)[1]["reason"] == "workload_unknown"
    assert explain(request, SHOP, arguments=(*config, "--caller", "spiffe://cluster.local/ns/default/sa/shop"))[0] == 0


def test_text_output_explains_the_decision(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "--policies",
        str(EXAMPLES / "policies"),
        "--request",
        str(EXAMPLES / "requests" / "delete-hat.yaml"),
        "--label",
        "app=hatshop",
    ]
    assert main(["explain", *names]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "DENY  no_matching_policy",
        f"peer    {FRONTEND} (assumed)",
        "token   none",
        "nearest ALLOW rules:",
    ]
    assert re.fullmatch(r"  default/hatshop-policy, rule 0 \(.*hatshop\.yaml:8\)", lines[4])
    assert lines[5] == "    methods: saw `DELETE`, rule has `GET`, `POST`"


def test_text_shows_detail_token_and_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text("\n---\n".join(json.dumps(d) for d in (BY_TOKEN, policy("w", {}, action="AUDIT"))))
    Path("r.yaml").write_text(json.dumps({"claims": ANN}))
    assert main(["explain", "--policies", "p.yaml", "--request", "r.yaml"]) == 0
    out = capsys.readouterr().out
    assert "policy  default/by-token, rule 0 (p.yaml:1)" in out
    assert "token   issuer `https://iss`, subject `ann` (assumed)" in out
    assert "also    AUDIT policy default/w, rule 0 matched (does not decide)" in out
    assert "note    no RequestAuthentication" in out
    Path("r.yaml").write_text(json.dumps({"principal": "x"}))
    assert main(["explain", "--policies", "p.yaml", "--request", "r.yaml"]) == 1
    assert "because a SPIFFE ID starts with" in capsys.readouterr().out


def revoking(**entries: Any) -> dict[str, Any]:
    return {"apiVersion": "zta.dev/v1", "kind": "RevocationList", "metadata": {"name": "incident"}, "spec": entries}


TOKENS_OF_ISS = {
    "apiVersion": "security.istio.io/v1",
    "kind": "RequestAuthentication",
    "metadata": {"name": "tokens"},
    "spec": {"jwtRules": [{"issuer": ANN["iss"], "jwks": jwks()}]},
}
EVERYBODY = policy("everybody", {})
OLD, NEW = "2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
REVOCATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "a SPIFFE ID": (
        {"principal": FRONTEND},
        revoking(spiffeIds=[{"id": FRONTEND}]),
        revoking(spiffeIds=[{"id": FRONTEND + "2"}]),
        "peer_revoked",
    ),
    "a prefix": (
        {"principal": FRONTEND},
        revoking(spiffeIds=[{"prefix": "spiffe://cluster.local/ns/default/"}]),
        revoking(spiffeIds=[{"prefix": "spiffe://cluster.local/ns/other/"}]),
        "peer_revoked",
    ),
    "a SPIFFE ID, whenever its certificate was issued": (
        {"principal": FRONTEND},
        revoking(spiffeIds=[{"id": FRONTEND, "before": NEW}]),
        revoking(spiffeIds=[{"id": FRONTEND, "before": OLD}]),
        "peer_revoked",
    ),
    "a jti": (
        {"claims": {**ANN, "jti": "t1"}},
        revoking(tokens=[{"id": "t1"}]),
        revoking(tokens=[{"id": "t1", "issuer": "https://other"}]),
        "token_revoked",
    ),
    "a subject": (
        {"claims": ANN},
        revoking(subjects=[{"subject": "ann", "issuer": ANN["iss"]}]),
        revoking(subjects=[{"subject": "ann", "issuer": "https://other"}]),
        "token_revoked",
    ),
    "a subject's older tokens": (
        {"claims": {**ANN, "iat": 1000}},
        revoking(subjects=[{"subject": "ann", "issuer": ANN["iss"], "before": OLD}]),
        revoking(subjects=[{"subject": "ann", "issuer": ANN["iss"], "before": "1970-01-01T00:00:00Z"}]),
        "token_revoked",
    ),
    "a workload by its JWT-SVID": (
        {"claims": {"iss": "spire", "sub": FRONTEND}},
        revoking(subjects=[{"subject": FRONTEND, "issuer": "spiffe://cluster.local"}]),
        revoking(subjects=[{"subject": FRONTEND, "issuer": "spire"}]),
        "token_revoked",
    ),
    "from now on": (
        {"principal": FRONTEND},
        revoking(spiffeIds=[{"id": FRONTEND, "effectiveFrom": time_text(NOW)}]),
        revoking(spiffeIds=[{"id": FRONTEND, "effectiveFrom": time_text(NOW + 1)}]),
        "peer_revoked",
    ),
}


@pytest.mark.parametrize(("asked", "bad", "good", "reason"), REVOCATIONS.values(), ids=REVOCATIONS.keys())
def test_assumed_identities_are_subject_to_revocation(
    explain: Any, asked: dict[str, Any], bad: dict[str, Any], good: dict[str, Any], reason: str
) -> None:
    status, answer = explain(asked, EVERYBODY, TOKENS_OF_ISS, bad, arguments=tuple(AT))
    assert (status, answer["reason"]) == (1, reason)
    assert "default/incident" in answer["detail"]
    assert explain(asked, EVERYBODY, TOKENS_OF_ISS, good, arguments=tuple(AT))[0] == 0


@pytest.mark.parametrize(
    ("asked", "document", "note"),
    [
        ({"principal": FRONTEND}, revoking(certificates=[{"serial": "01"}]), "by serial number or SHA-256"),
        (
            {"principal": FRONTEND},
            revoking(spiffeIds=[{"id": FRONTEND, "before": OLD}]),
            "issued before a certain time",
        ),
        ({"claims": ANN}, revoking(keys=[{"id": "k1", "issuer": ANN["iss"]}]), "keys of `https://iss` are revoked"),
    ],
    ids=["serial numbers", "older certificates", "keys"],
)
def test_revocations_that_can_not_be_checked_for_assumed_identities_are_noted(
    explain: Any, asked: dict[str, Any], document: dict[str, Any], note: str
) -> None:
    def notes(*documents: dict[str, Any]) -> list[str]:
        texts = explain(asked, EVERYBODY, TOKENS_OF_ISS, *documents, arguments=tuple(AT))[1]["notes"]
        return [note for note in texts if note.startswith("not checked")]

    (texts,) = notes(document)
    assert note in texts
    assert notes(revoking(spiffeIds=[{"id": FRONTEND + "2", "before": OLD}])) == []


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"])
def test_a_time_without_a_valid_year_in_some_time_zone_is_refused(at: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--request", "-", "--at", at])
    assert ended.value.code == 2
    assert "1970 to 9998" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["9" * 400, "-1", ".nan", ".inf", "true", "soon"])
@pytest.mark.parametrize("name", ["iat", "nbf", "exp"])
def test_an_assumed_time_claim_must_be_a_time(explain: Any, name: str, value: str) -> None:
    written = f"claims: {{iss: a, sub: ann, {name}: {value}}}"
    status, answer = explain(written, EVERYBODY)
    (fault,) = answer["faults"]
    assert (status, fault["line"], fault["message"]) == (2, 1, f"`claims.{name}` is not a time")
    assert explain(written.replace(value, "1000.5"), EVERYBODY)[0] == 0


@pytest.mark.parametrize("value", ["9" * 400, "-1" + "0" * 309, ".nan", ".inf", "[1, {b: .nan}]"])
def test_an_assumed_claim_with_an_invalid_number_is_a_fault(explain: Any, value: str) -> None:
    """It ended in a traceback where a rule or a header read the claim."""
    written = f"claims: {{iss: a, sub: ann, n: {value}}}"
    status, answer = explain(written, EVERYBODY)
    (fault,) = answer["faults"]
    assert (status, fault["line"], fault["message"]) == (2, 1, "`claims.n` has a number that is not valid in a token")
    assert explain(written.replace(value, "1.5e300"), EVERYBODY)[0] == 0


@pytest.mark.parametrize("value", ["3", "true", "[a, 3]", "{a: b}"])
def test_an_assumed_audience_is_a_string_or_a_list_of_strings(explain: Any, value: str) -> None:
    status, answer = explain(f"claims: {{iss: a, sub: ann, aud: {value}}}", EVERYBODY)
    assert (status, answer["faults"][0]["message"]) == (2, "`claims.aud` is not a valid audience")
    assert explain("claims: {iss: a, sub: ann, aud: [a, b]}", EVERYBODY)[0] == 0


def test_a_token_binding_that_can_not_be_checked_is_noted(explain: Any) -> None:
    def notes(**claims: Any) -> list[str]:
        return [n for n in explain({"claims": {**ANN, **claims}}, EVERYBODY)[1]["notes"] if n.startswith("not checked")]

    assert notes(cnf={"jkt": "x"}) == ["not checked: whether the caller holds the key that `cnf` binds the token to"]
    assert notes() == []


@pytest.mark.parametrize(
    ("signer", "how"),
    [(Signer(), "its signature is valid"), (Signer(number=77), "not verified")],
    ids=["ours", "forged"],
)
def test_a_refused_token_is_shown_with_its_issuer_and_whether_it_was_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], signer: Signer, how: str
) -> None:
    token = signer.token(iss=ANN["iss"], sub="ann", exp=NOW - 100)
    (tmp_path / "request.yaml").write_text(json.dumps({"token": token}))
    (tmp_path / "policies.yaml").write_text(json.dumps(TOKENS_OF_ISS))
    files = ["--policies", str(tmp_path / "policies.yaml"), "--request", str(tmp_path / "request.yaml")]
    assert main(["explain", *files, *AT]) == 1
    assert f"refused: issuer `https://iss`, subject `ann` ({how})" in capsys.readouterr().out


FRESH = {
    "apiVersion": "zta.dev/v1",
    "kind": "AccessPolicy",
    "metadata": {"name": "fresh", "namespace": "default"},
    "spec": {"rules": [{"require": {"authentication": {"acr": ["phr"], "maxAge": "5m", "login": "/login"}}}]},
}


def test_the_challenge_that_the_caller_gets_is_shown(explain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"claims": {**ANN, "acr": "pwd"}}
    status, answer = explain(asked, FRESH, arguments=tuple(AT))
    assert (status, answer["reason"]) == (1, "step_up_required")
    assert answer["remedy"] == {
        "policy": "default/fresh",
        "rule": 0,
        "acr": ["phr"],
        "maxAge": 300,
        "login": "/login",
        "trustComponents": [],
        "entitlement": None,
        "disclosed": False,
    }
    assert answer["nearest"][0]["failed"] == [
        "require.authentication: saw acr `pwd`, no `auth_time`, rule has acr `phr`, auth_time at most `300 s` ago"
    ]
    main(["explain", "--policies", "policies.yaml", "--request", "request.yaml", *AT])
    text = " ".join(capsys.readouterr().out.split())
    assert "a Bearer challenge with acr_values phr, max_age 300; browsers are sent to /login" in text
    allowed = explain({"claims": {**ANN, "acr": "phr", "auth_time": int(NOW)}}, FRESH, arguments=tuple(AT))[1]
    assert (allowed["verdict"], allowed["remedy"]) == ("allow", None)


ENTITLEMENT = {
    "apiVersion": "zta.dev/v1",
    "kind": "AccessEntitlement",
    "metadata": {"name": "db", "namespace": "default"},
    "spec": {
        "who": [{"source": {"requestPrincipals": ["*"]}}],
        "maxDuration": "1h",
        "approvers": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}],
    },
}


def test_the_answer_names_the_entitlement_that_the_caller_can_ask_for(
    explain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = {**FRESH, "spec": {"rules": [{"require": {"grant": "db"}}]}}
    answer = explain({"claims": ANN}, ENTITLEMENT, guarded, arguments=tuple(AT))[1]
    assert (answer["reason"], answer["remedy"]["entitlement"]) == ("grant_required", "default/db")
    main(["explain", "--policies", "policies.yaml", "--request", "request.yaml", *AT])
    text = " ".join(capsys.readouterr().out.split())
    assert "answer grant_required, naming default/db: ask with `zta-authz access request default/db`" in text


MINTS = {
    "apiVersion": "zta.dev/v1",
    "kind": "AccessPolicy",
    "metadata": {"name": "orders"},
    "spec": {"response": {"mint": {"audience": "orders.shop", "scope": "orders.read"}}, "rules": [{}]},
}


def test_the_token_that_would_be_minted_is_shown(explain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = explain({"principal": FRONTEND}, MINTS)
    assert answer["mint"] == {
        "audience": "orders.shop",
        "header": "x-zta-token",
        "kind": "session",
        "lifetimeSeconds": 60.0,
        "scope": "orders.read",
    }
    assert main(["explain", "--policies", "policies.yaml", "--request", "request.yaml"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mint"))
    assert row.split(maxsplit=1)[1] == (
        "a session token for `orders.shop` in header `x-zta-token`, 60 s, scope `orders.read`"
    )
    assert explain({"method": "GET"}, MINTS)[1]["mint"] is None, "a caller without a name"
    assert explain({"principal": FRONTEND}, SHOP)[1]["mint"] is None
