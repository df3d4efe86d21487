"""Load an inventory of many devices: its memory, CPU time to load, and the cost of finding a device.

Each device has an id and the identifier of a certificate. Devices whose values are equal share them.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from zta_authz.facts.device_files import parse_inventory
from zta_authz.facts.devices import DeviceTables
from zta_authz.model.identity import Identity, Peer, PeerTrust
from zta_authz.model.options import Options
from zta_authz.model.request import RequestAttributes
from zta_authz.model.spiffe import SpiffeId
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy.rules.device_identity import InventoryDevices
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.device_documents import DeviceInventory

_NOW = 1_800_000_000.0
_LOOK_UPS = 100_000
_PAGE = 4096
_DOCUMENT = """
apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {name: laptops, namespace: default}
spec:
  source: {file: devices.jsonl}
  id: id
  identify: {certificate: spiffeId, certificateField: spiffe}
  fields: {managed: mdm.enrolled, encrypted: disk, os: os.name, osVersion: os.version, compliant: state}
  times: {posture: checked, seen: seen}
"""


def _name(number: int) -> str:
    return f"spiffe://cluster.local/device/{number:012x}"


def _content(devices: int) -> bytes:
    return b"\n".join(
        json.dumps(
            {
                "id": f"{number:08x}-0000-4000-8000-{number:012x}",
                "spiffe": _name(number),
                "mdm": {"enrolled": number % 7 != 0},
                "disk": "enabled",
                "os": {"name": "macOS", "version": f"26.{number % 9}"},
                "state": "compliant",
                "checked": int(_NOW) - number % 86_000,
                "seen": int(_NOW) - number % 3600,
            }
        ).encode()
        for number in range(devices)
    )


def _resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 1e6


def _look_up_microseconds(inventory: DeviceInventory, view: DeviceTables, devices: int) -> float:
    """CPU time to identify a device by its certificate and to age its facts."""
    identifier, request = InventoryDevices(inventory), RequestAttributes()
    callers = []
    for number in range(0, devices, max(1, devices // 1000)):
        name = SpiffeId.parse(_name(number))
        peer = Peer((str(name),), name, PeerTrust.CERTIFICATE, b"x" * 32)
        callers.append(Inputs(request, Identity(peer), Options(), _NOW))
    rounds = _LOOK_UPS // len(callers)
    started = time.process_time()
    for _ in range(rounds):
        for inputs in callers:
            identifier.identify(inputs, view)
    return (time.process_time() - started) / (rounds * len(callers)) * 1e6


def main() -> int:
    """Print one line a number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=200_000, metavar="N")
    devices = parser.parse_args().devices
    inventory = compile_snapshot([SourceText("inventory.yaml", _DOCUMENT)], Options()).models.inventories[0]
    content = _content(devices)
    gc.collect()
    before, started = _resident(), time.process_time()
    table = parse_inventory("devices.jsonl", content, inventory.source)
    spent = time.process_time() - started
    gc.collect()
    view = DeviceTables({inventory.full_name: (inventory.source, table)})
    print(f"devices     {table.size}")
    print(f"file        {len(content) / 1e6:.0f} MB")
    print(f"load        {spent:.2f} s of CPU time")
    print(f"memory      {_resident() - before:.0f} MB")
    print(f"identify    {_look_up_microseconds(inventory, view, devices):.2f} us of CPU time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
