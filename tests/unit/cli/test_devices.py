from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import HEAD, LAPTOP, SPEC, record
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

AT = "2027-01-15T08:00:00Z"
RULES = """---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: payroll, namespace: default}
spec:
  rules:
  - require: {device: {managed: true, encrypted: false, osAtLeast: {macOS: "26.1"}}}
  - to: [{operation: {paths: ["/x"]}}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: no-strangers, namespace: default}
spec:
  action: DENY
  rules:
  - when: [{key: zta.device.firewall, values: ["false"]}]
"""


def devices(folder: Path, *arguments: str, records: tuple[dict[str, Any], ...] = (record(),)) -> int:
    (folder / "policies.yaml").write_text(HEAD + SPEC + RULES)
    (folder / "devices.jsonl").write_text("\n".join(map(json.dumps, records)))
    action, *rest = arguments
    inputs = ["--policies", str(folder / "policies.yaml"), "--directory", str(folder), "--at", AT]
    return main(["devices", action, *rest, *inputs])


@pytest.mark.parametrize("wanted", ["laptop-1", LAPTOP])
def test_a_device_is_shown_with_its_facts_and_what_rules_make_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    assert devices(tmp_path, "show", wanted) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "laptop-1  in default/fleet"
    assert "  found by  id:laptop-1" in lines
    assert f"  found by  certificate:{LAPTOP}" in lines
    assert "  managed `true`, observed 60 s ago, from default/fleet" in lines
    assert "  ALLOW default/payroll rule 0" in lines
    assert [line.split(": ")[0] for line in lines if "require.device" in line] == [
        "    holds  require.device.managed",
        "    FAILS  require.device.encrypted",
        "    holds  require.device.osAtLeast",
    ]
    (unknown,) = (line for line in lines if "zta.device.firewall" in line)
    assert unknown.startswith("    holds  ")


def test_the_json_has_every_field_with_its_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert devices(tmp_path, "show", "laptop-1", "-o", "json", records=(record(checked=5),)) == 0
    answer = json.loads(capsys.readouterr().out)
    (device,) = answer["devices"]
    assert (answer["kind"], device["identifiers"]) == ("Devices", ["id:laptop-1", f"certificate:{LAPTOP}"])
    assert {"name": "managed", "state": "stale", "value": None, "observedAt": "1970-01-01T00:00:05Z"} in device[
        "fields"
    ]
    clauses = {rule["policy"]: [clause["holds"] for clause in rule["clauses"]] for rule in device["rules"]}
    assert clauses == {"default/no-strangers": [True], "default/payroll": [False, False, False]}


def test_a_device_that_no_inventory_has_is_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert devices(tmp_path, "show", "laptop-\x1b[2J") == 1
    assert capsys.readouterr().out == "no inventory has the device `laptop-\\x1b[2J`\n"


def test_check_counts_what_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tuple(record(str(number), spiffe="") for number in range(3))
    assert devices(tmp_path, "check", records=good) == 0
    assert capsys.readouterr().out == "default/fleet: 3 devices, 0 stale, 0 conflicting, 0 malformed\n"
    assert devices(tmp_path, "check", "-o", "json", records=(*good, good[0], record("old", checked=5))) == 1
    (count,) = json.loads(capsys.readouterr().out)["inventories"]
    assert count == {"inventory": "default/fleet", "devices": 4, "stale": 1, "conflicting": 1, "malformed": 0}


def test_policies_without_an_inventory_and_a_bad_file_are_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    assert main(["devices", "check", "--policies", str(tmp_path / "rules.yaml")]) == 2
    assert "has no DeviceInventory" in capsys.readouterr().err
    assert devices(tmp_path, "check", records=({},)) == 2
    assert "a record has no id" in capsys.readouterr().err
