"""`zta-authz replay`: changed decisions, undecidable requests, and their output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.check_requests import FRONTEND, check_request
from tests.support.configmap import allow_path
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.sinks import capture
from zta_authz.cli import main
from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.identity import Binding, Identity, Peer, PeerTrust, Token
from zta_authz.model.request import Address, RequestAttributes
from zta_authz.model.spiffe import SpiffeId

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_760_000_000.0
ID = "0123456789abcdef0123456789abcdef"


def line(
    path: str = "/a", *, allowed: bool = True, reason: Reason | None = None, token: bool = False, **more: Any
) -> bytes:
    """A line of a decision log: the frontend asks for `path`."""
    peer = Peer((FRONTEND,), SpiffeId.parse(FRONTEND), PeerTrust.CERTIFICATE)
    claims = {"iss": "https://login.example", "sub": "alice"}
    who = (
        Identity(peer, Token(claims["iss"], claims["sub"], claims), binding=Binding.CERTIFICATE)
        if token
        else Identity(peer)
    )
    request = RequestAttributes(
        method="GET",
        path=path,
        host="shop.example",
        source=Address("10.0.0.1", 4000),
        destination=Address("10.0.0.2", 8080),
    )
    verdict = Verdict.ALLOW if allowed else Verdict.DENY
    why = reason or (Reason.ALLOW_POLICY if allowed else Reason.NO_MATCHING_POLICY)
    decision = Decision(verdict, why, "default/old" if allowed else "", 2 if allowed else None, who)
    fields = json.loads(encode_line(make_record(capture(request, decision, ID, NOW))))
    return json.dumps(fields | more).encode() + b"\n"


class Files:
    """New policies and logs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.new = directory / "new.yaml"
        self.log = directory / "decisions.jsonl"
        self.config = directory / "settings.yaml"
        self.config.write_text(f"policies: [{directory / 'old.yaml'}]\npeer: {{trust_proxy: true}}\n")

    def policies(self, *rules: str, action: str = "ALLOW", name: str = "new") -> None:
        text = "\n".join(f"  - {rule}" for rule in rules)
        self.new.write_text(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
            f"metadata: {{name: {name}}}\nspec:\n  action: {action}\n  rules:\n{text}\n"
        )

    def replay(self, *arguments: str) -> int:
        return main(
            ["replay", *(arguments or (str(self.log),)), "--policies", str(self.new), "--config", str(self.config)]
        )

    def json(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
        status = self.replay(*(arguments or (str(self.log),)), "--output", "json")
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return status, answer


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def to(paths: str) -> str:
    return f"{{to: [{{operation: {{paths: [{paths}]}}}}]}}"


def test_a_log_whose_verdicts_all_stay_ends_with_0(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.log.write_bytes(line("/a") + line("/b", allowed=False))
    files.policies(to("/a"))
    assert files.replay() == 0
    assert capsys.readouterr().out == "requests: 2, same: 2, changed: 0, undecidable: 0, refused: 0, unread: 0\n"


def test_changes_are_grouped_by_verdicts_and_policies_and_end_with_1(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.log.write_bytes(line("/gone") * 5 + line("/a", allowed=False) + line("/a"))
    files.policies(to("/x"), to("/a"))
    status, answer = files.json(capsys)
    assert status == 1
    assert answer["kind"] == "ReplayResult"
    assert answer["summary"] == {
        "requests": 7, "same": 1, "changed": 6, "undecidable": 0, "refused": 0, "unread": 0,
    }  # fmt: skip
    assert [(change["from"], change["to"], change["count"]) for change in answer["changes"]] == [
        (
            {"verdict": "allow", "policy": "default/old", "rule": 2, "ruleName": None},
            {"verdict": "deny", "policy": None, "rule": None, "ruleName": None},
            5,
        ),
        (
            {"verdict": "deny", "policy": None, "rule": None, "ruleName": None},
            {"verdict": "allow", "policy": "default/new", "rule": 1, "ruleName": None},
            1,
        ),
    ]
    first = answer["changes"][0]["examples"]
    assert len(first) == 3
    assert (first[0]["path"], first[0]["principal"], first[0]["decision_id"]) == ("/gone", FRONTEND, ID)


def test_the_text_names_policies_and_shows_examples(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.log.write_bytes(line("/gone\x1b[2J"))
    files.policies(to("/a"))
    assert files.replay() == 1
    out = capsys.readouterr().out
    assert "     1  allow -> deny  no policy matches; was by default/old, rule 2" in out
    assert f"GET shop.example/gone\\x1b[2J by {FRONTEND}" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("clause", "needs"),
    [
        ("{when: [{key: 'request.headers[x-a]', values: ['1']}]}", "request.headers[x-a]"),
        ("{when: [{key: 'request.auth.claims[group]', values: ['1']}]}", "request.auth.claims[group]"),
        ("{when: [{key: connection.sni, values: ['a.example']}]}", "connection.sni"),
        ("{when: [{key: remote.ip, values: ['10.0.0.0/8']}]}", "remote.ip"),
        ("{when: [{key: request.auth.audiences, values: ['a']}]}", "request.auth.audiences"),
    ],
)
def test_rules_on_unrecorded_data_are_undecidable_and_reported(
    files: Files, capsys: pytest.CaptureFixture[str], clause: str, needs: str
) -> None:
    files.log.write_bytes(line("/a", token=True))
    files.policies(clause)
    status, answer = files.json(capsys)
    assert status == 0
    assert answer["summary"]["undecidable"] == 1
    assert answer["undecidable"] == [{"needs": needs, "count": 1}]


@pytest.mark.parametrize(
    "clause",
    [
        "{from: [{source: {principals: ['cluster.local/ns/default/sa/frontend']}}]}",
        "{from: [{source: {requestPrincipals: ['https://login.example/alice']}}]}",
        "{from: [{source: {ipBlocks: ['10.0.0.0/24']}}]}",
        "{to: [{operation: {hosts: [shop.example], methods: [GET], paths: [/a], ports: ['8080']}}]}",
        "{when: [{key: destination.ip, values: ['10.0.0.2']}]}",
    ],
)
def test_rules_on_recorded_data_are_decided(files: Files, capsys: pytest.CaptureFixture[str], clause: str) -> None:
    files.log.write_bytes(line("/a", token=True, allowed=False))
    files.policies(clause)
    status, answer = files.json(capsys)
    assert status == 1
    assert answer["changes"][0]["to"]["policy"] == "default/new"


def test_without_a_token_rules_on_claims_are_decided(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.log.write_bytes(line("/a"))
    files.policies("{when: [{key: 'request.auth.claims[group]', values: ['1']}]}")
    assert files.json(capsys)[1]["summary"]["changed"] == 1


def test_masked_fields_are_treated_as_unknown(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.log.write_bytes(line("/a", principal="hmac-sha256:00"))
    files.policies("{from: [{source: {principals: ['cluster.local/ns/default/sa/frontend']}}]}")
    assert files.json(capsys)[1]["undecidable"] == [{"needs": "principals", "count": 1}]
    files.config.write_text(files.config.read_text() + "audit: {mask: [{field: principal, how: drop}]}\n")
    files.log.write_bytes(line("/a", principal=""))
    assert files.json(capsys)[1]["undecidable"] == [{"needs": "principals", "count": 1}]


def test_requests_refused_before_policies_are_only_counted(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.log.write_bytes(line("/a", allowed=False, reason=Reason.TOKEN_EXPIRED))
    files.policies(to("/a"))
    status, answer = files.json(capsys)
    assert (status, answer["summary"]["refused"]) == (0, 1)


def test_log_events_are_skipped_and_lines_that_are_not_records_are_reported(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    event = b'{"seq": 1, "schema": "zta.dev/audit-log/v1", "event": "open"}\n'
    files.log.write_bytes(
        event + line("/a") + line("/a")[:40] + b"\n" + b'{"schema": "zta.dev/decision/v1", "time": 1}\n'
    )
    files.policies(to("/a"))
    status, answer = files.json(capsys)
    assert status == 0
    assert answer["summary"]["requests"] == 1
    assert answer["unread"] == [f"{files.log}:3", f"{files.log}:4"]


def delimited(*payloads: bytes) -> bytes:
    def varint(number: int) -> bytes:
        return bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80,)) + varint(number >> 7)

    return b"".join(varint(len(payload)) + payload for payload in payloads)


@pytest.mark.parametrize("form", ["directory", "below", "delimited", "single"])
def test_check_requests_are_decided_by_both_sets(files: Files, capsys: pytest.CaptureFixture[str], form: str) -> None:
    payloads = [check_request(path=path).SerializeToString() for path in ("/a", "/b")]
    (files.directory / "old.yaml").write_text(allow_path("old", "/a"))
    files.policies(to("/b"))
    recorded = files.directory / "recorded"
    if form in ("directory", "below"):
        folder = recorded if form == "directory" else recorded / "monday" / "morning"
        (recorded / ".hidden").mkdir(parents=True)
        (recorded / ".hidden" / "x").write_bytes(b"x")
        folder.mkdir(parents=True, exist_ok=True)
        for number, payload in enumerate(payloads):
            (folder / f"{number}.bin").write_bytes(payload)
    else:
        recorded.write_bytes(delimited(*payloads) if form == "delimited" else payloads[0])
    status, answer = files.json(capsys, str(recorded))
    assert status == 1
    changes = [(change["from"]["policy"], change["to"]["policy"]) for change in answer["changes"]]
    assert changes == [("default/old", None), (None, "default/new")][: len(changes)]
    assert answer["summary"]["changed"] == (1 if form == "single" else 2)
    assert answer["changes"][0]["examples"][0]["path"] == "/a"


def test_check_requests_can_be_compared_with_given_policies(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = files.directory / "a.bin"
    recorded.write_bytes(check_request(path="/b").SerializeToString())
    files.policies(to("/b"))
    assert files.json(capsys, str(recorded), "--against", str(files.new))[0] == 0


def test_the_time_of_the_request_decides_unless_another_is_given(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    message = check_request(path="/a")
    message.attributes.request.time.FromSeconds(1_700_000_000)
    recorded = files.directory / "a.bin"
    recorded.write_bytes(message.SerializeToString())
    (files.directory / "old.yaml").write_text(allow_path("old", "/b"))
    files.new.write_text(
        "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: new}\n"
        "spec: {rules: [{expiresAt: '2024-01-01T00:00:00Z'}]}\n"
    )
    assert files.json(capsys, str(recorded))[0] == 1
    assert files.json(capsys, str(recorded), "--at", "2025-01-01T00:00:00Z")[0] == 0


def test_check_requests_without_old_policies_get_a_hint(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = files.directory / "a.bin"
    recorded.write_bytes(check_request(path="/b").SerializeToString())
    files.policies(to("/b"))
    assert files.replay(str(recorded)) == 2
    assert "--against DIR" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"", b'{"a": 1}\n'])
def test_files_without_decisions_exit_with_2(files: Files, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    files.log.write_bytes(content)
    (files.directory / "old.yaml").write_text(allow_path("old", "/b"))
    files.policies(to("/a"))
    assert files.replay() == 2
    assert str(files.log) in capsys.readouterr().err


def test_broken_policies_and_absent_files_end_with_2(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.policies(to("/a"))
    assert files.replay(str(files.directory / "nowhere")) == 2
    assert "nowhere: cannot be read" in capsys.readouterr().err
    files.log.write_bytes(line("/a"))
    files.new.write_text("kind: Nonsense\n")
    assert files.replay() == 2
    assert "new.yaml:1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entries", "token", "changes"),
    [
        ({"spiffeIds": [{"id": FRONTEND}]}, False, True),
        ({"spiffeIds": [{"id": FRONTEND + "2"}]}, False, False),
        ({"spiffeIds": [{"id": FRONTEND, "before": "2000-01-01T00:00:00Z"}]}, False, False),
        ({"subjects": [{"subject": "alice", "issuer": "https://login.example"}]}, True, True),
        ({"subjects": [{"subject": "alice", "issuer": "https://login.example"}]}, False, False),
        ({"subjects": [{"subject": "alice", "issuer": "https://other.example"}]}, True, False),
    ],
)
def test_recorded_callers_are_revoked_by_the_new_policies(
    files: Files, capsys: pytest.CaptureFixture[str], entries: dict[str, Any], token: bool, changes: bool
) -> None:
    files.log.write_bytes(line("/a", token=token))
    files.policies(to("/a"))
    revoking = {"apiVersion": "zta.dev/v1", "kind": "RevocationList", "metadata": {"name": "l"}, "spec": entries}
    files.new.write_text(f"{files.new.read_text()}---\n{json.dumps(revoking)}\n")
    status, answer = files.json(capsys)
    assert (status, answer["summary"]["changed"]) == (int(changes), int(changes))


@pytest.mark.parametrize("port", ["9" * 5000, "\u00b2", "-1", ""])
def test_a_recorded_address_with_an_invalid_port_is_ignored(
    files: Files, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    files.log.write_bytes(line("/a", source=f"10.0.0.1:{port}"))
    files.policies(to("/a"))
    assert files.json(capsys)[1]["summary"]["same"] == 1


def test_the_lock_file_of_a_log_is_skipped(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell names it too: `replay decisions.jsonl*`."""
    lock = files.log.with_name(files.log.name + ".lock")
    lock.touch()
    files.log.write_bytes(line("/a"))
    files.policies(to("/a"))
    assert files.replay(str(files.log), str(lock)) == 0
    assert files.replay(str(lock)) == 2
    assert "there are no decisions" in capsys.readouterr().err
