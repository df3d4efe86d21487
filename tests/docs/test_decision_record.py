"""The published JSON Schema matches the records: all records are valid, and all their fields are described."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from tests.support.audit_logs import read_lines, record_line, segments, write_log
from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import DecisionRecord, encode_line, make_record, stub_line
from zta_authz.audit.sinks import capture
from zta_authz.model.decision import Decision, Response, Shadow, Verdict
from zta_authz.model.identity import ApiClient, Binding, Identity, Token
from zta_authz.model.request import Address, RequestAttributes

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "decision-record.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
RICH = Decision(
    Verdict.ALLOW,
    deny().reason,
    "default/a",
    0,
    Identity(token=Token("issuer", "subject", {}), binding=Binding.DPOP, api_client=ApiClient("shop")),
    "detail",
    Response((("x-a", "b"),), ("x-c",)),
    (Shadow("AUDIT", "default/w", 1, dry_run=False),),
)
ADDRESS = Address("10.0.0.1", 1)
FULL = RequestAttributes("GET", "/é\udcff", "host", source=ADDRESS, destination=ADDRESS, request_id="7")


def lines() -> list[bytes]:
    traced = attributes(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    notes = [
        capture(request, decision, DECISION_ID, 1.0, 2.0, "d" * 64)
        for request in (None, traced, FULL, replace(FULL, path="\udcff" * 5000))
        for decision in (allow(), deny(), RICH)
    ]
    records = [make_record(note) for note in notes]
    masker = Masker([MaskRule(field, MaskAction.HASH) for field in Maskable], bytes(32))
    return [encode_line(made) for record in records for made in (record, masker.mask(record))] + [stub_line(notes[0])]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_whatever_is_recorded_is_valid() -> None:
    for line in lines():
        VALIDATOR.validate(json.loads(line))


def test_every_record_in_a_log_file_is_valid(tmp_path: Path) -> None:
    write_log(tmp_path, 20, max_bytes=4096)
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(file.read_bytes() + b'{"seq":')
    write_log(tmp_path, 1)
    records = [
        json.loads(line) for segment in segments(tmp_path) for line in read_lines(segment) if line.endswith(b"}\n")
    ]
    assert {line.get("event") for line in records} == {"open", "seal", "resume", None}
    for line in records:
        VALIDATOR.validate(line)


def test_the_schema_describes_every_field_and_no_other() -> None:
    described = SCHEMA["$defs"]["decision"]
    assert set(described["properties"]) - {"seq", "prev"} == set(DecisionRecord.__struct_fields__)
    assert set(described["required"]) == set(DecisionRecord.__struct_fields__)


def test_the_document_names_every_field() -> None:
    text = (ROOT / "docs" / "decision-log.md").read_text(encoding="utf-8")
    assert [name for name in DecisionRecord.__struct_fields__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "zta.dev/decision/v2"},
        {"verdict": "maybe"},
        {"decision_id": "7"},
        {"latency_us": -1},
        {"rule": "0"},
        {"time": "yesterday"},
    ],
)
def test_anything_but_a_record_is_invalid(change: dict[str, Any]) -> None:
    record = json.loads(record_line(1))
    VALIDATOR.validate(record)
    assert not VALIDATOR.is_valid(record | change)
    assert not VALIDATOR.is_valid({name: value for name, value in record.items() if name not in change})
