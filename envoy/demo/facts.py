"""What the demo knows about laptops and addresses: a device inventory and a small country database, new in each run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAPTOPS = "laptops.jsonl"
COUNTRIES = "country.mmdb"
SWEDEN, BRITAIN = "89.160.20.112", "81.2.69.160"
"""Addresses of two countries. The story plays a load balancer that writes them to X-Forwarded-For."""

_DAY_SECONDS = 86400
_STATES: dict[str, dict[str, Any]] = {
    "laptop": {},
    "laptop-unmanaged": {"managed": False},
    "laptop-silent": {"days_ago": 3},
    "laptop-plaintext": {"encrypted": False},
}
PEERS = tuple(_STATES)


def laptops(spiffe_id: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return the records of the inventory, one for each of `PEERS`. `spiffe_id` gives the ID of its certificate."""
    now = int(time.time())
    records = []
    for number, (name, state) in enumerate(_STATES.items(), 1):
        record = {"serial": f"HS-{number}", "spiffe_id": spiffe_id(name), "managed": True, "encrypted": True, **state}
        record["checked_at"] = now - record.pop("days_ago", 0) * _DAY_SECONDS
        records.append(record)
    return records


def write(directory: Path, spiffe_id: Callable[[str], str]) -> None:
    """Write the inventory and the country database below `directory`."""
    lines = [json.dumps(record) + "\n" for record in laptops(spiffe_id)]
    (directory / LAPTOPS).write_text("".join(lines), encoding="utf-8")
    writer = MMDBWriter(ip_version=6, database_type="HatShop-Country", ipv4_compatible=True)
    for network, code in ((f"{SWEDEN}/24", "SE"), (f"{BRITAIN}/24", "GB")):
        writer.insert_network(IPSet([network]), {"country": {"iso_code": code}})
    writer.to_db_file(str(directory / COUNTRIES))
