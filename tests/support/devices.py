"""Device inventories for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.policies import snapshot
from zta_authz.facts.device_files import parse_inventory

if TYPE_CHECKING:
    from zta_authz.facts.device_table import DeviceTable
    from zta_authz.model.device_documents import DeviceInventory

NOW = 1_800_000_000.0
LAPTOP = "spiffe://cluster.local/device/laptop-1"
HEAD = "apiVersion: zta.dev/v1\nkind: DeviceInventory\nmetadata: {name: fleet, namespace: default}\nspec:\n"
SPEC = """  source: {file: devices.jsonl}
  id: id
  identify: {certificate: spiffeId, certificateField: spiffe, tokenClaim: device_id}
  fields: {managed: mdm.enrolled, encrypted: disk, os: os.name, osVersion: os.version, compliant: state}
  times: {posture: checked, seen: seen}
"""


def inventory(spec: str = SPEC) -> DeviceInventory:
    """The one inventory of a document with this `spec`."""
    (found,) = snapshot(HEAD + spec).models.inventories
    return found


def record(device_id: str = "laptop-1", **changes: Any) -> dict[str, Any]:
    """A good device, as JSONL has it."""
    good = {
        "id": device_id, "spiffe": LAPTOP, "mdm": {"enrolled": True}, "disk": "enabled",
        "os": {"name": "macOS", "version": "26.1"}, "state": "compliant", "checked": NOW - 60, "seen": NOW - 10,
    }  # fmt: skip
    return good | changes


def table(*records: Any, spec: str = SPEC) -> DeviceTable:
    """The table of a file with these records; text and bytes go in as they are."""
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in records]
    return parse_inventory("devices.jsonl", b"\n".join(lines), inventory(spec).source)
