"""DeviceInventory documents: what they say, and every fault at its place."""

from __future__ import annotations

import pytest

from tests.support.devices import HEAD, SPEC, inventory
from tests.support.policies import faults
from zta_authz.model.device_documents import CertificateKey, GraceAs, InventoryFormat


def test_every_field_is_read() -> None:
    found = inventory(SPEC + "  maxAge: {posture: 1h, seen: 48h}\n  graceAs: compliant\n")
    assert (found.full_name, found.certificate_key) == ("default/fleet", CertificateKey.SPIFFE_ID)
    assert (found.posture_max_age, found.seen_max_age) == (3600.0, 172800.0)
    source = found.source
    assert (source.file, source.format, source.grace_as) == ("devices.jsonl", InventoryFormat.JSONL, GraceAs.COMPLIANT)
    assert (source.id, source.certificate) == (("id",), ("spiffe",))
    assert dict(source.fields)["managed"] == ("mdm", "enrolled")


GOOD = "  source: {file: d.jsonl}\n  id: id\n  identify: {tokenClaim: d}\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (GOOD + "  color: red\n", "unknown field `color`"),
        (GOOD.replace("  id: id\n", ""), "DeviceInventory.spec has no `id`"),
        (GOOD.replace("  source: {file: d.jsonl}\n", ""), "DeviceInventory.spec has no `source`"),
        (GOOD.replace("  identify: {tokenClaim: d}\n", ""), "DeviceInventory.spec has no `identify`"),
        (GOOD.replace("tokenClaim: d", ""), "`identify` identifies no device"),
        (GOOD.replace("tokenClaim: d", "tokenClaim: d, certificateField: x"), "`certificateField` without `certificate`"),
        (GOOD.replace("tokenClaim: d", "certificate: sha256, acceptUnbound: true"), "`acceptUnbound` without `tokenClaim`"),
        (GOOD.replace("tokenClaim: d", "certificate: cn"), "`cn` is not a `certificate`; one of spiffeId, sha256, serial, sanUri"),
        (GOOD.replace("tokenClaim: d", "certificate: serial"), "`certificate: serial` needs `certificateField`"),
        (GOOD.replace("tokenClaim: d", "certificate: serial"), "`certificate: serial` needs `certificateIssuer`"),
        (GOOD.replace("tokenClaim: d", "certificate: serial"), "`certificate: serial` needs `serialFormat`; write `hex` or `decimal`"),
        (GOOD.replace("tokenClaim: d", "tokenClaim: d, certificateIssuer: CN=a"), "`certificateIssuer` is only for `certificate: serial`"),
        (GOOD.replace("tokenClaim: d", "tokenClaim: d, serialFormat: hex"), "`serialFormat` is only for `certificate: serial`"),
        (GOOD.replace("d.jsonl", "d.jsonl, format: xml"), "`xml` is not a `format`; one of jsonl, json, csv, fleet, osquery"),
        (GOOD.replace("d.jsonl", "/etc/passwd"), "`/etc/passwd` is not a file of the facts directory"),
        (GOOD.replace("d.jsonl", "../d.jsonl"), "is not a file of the facts directory"),
        (GOOD.replace("d.jsonl", "a/../d.jsonl"), "is not a file of the facts directory"),
        (GOOD.replace("d.jsonl", "..data/d"), "is not a file of the facts directory"),
        (GOOD.replace("d.jsonl", '"a\\u0000b"'), "is not a file of the facts directory"),
        (GOOD + "  fields: {id: x}\n", "`id` is not a name for a field"),
        (GOOD + "  fields: {lastSeen: x}\n", "`lastSeen` is not a name for a field"),
        (GOOD + "  fields: {'a-b': x}\n", "`a-b` is not a name for a field"),
        (GOOD + "  fields: [a]\n", "`fields` is a list"),
        (GOOD + "  fields: {" + ", ".join(f"f{n}: x" for n in range(33)) + "}\n", "33 fields, more than the limit of 32"),
        (GOOD + "  maxAge: {posture: 24}\n", "`posture` has the integer `24`"),
        (GOOD + "  times: {changed: x}\n", "unknown field `changed`"),
        (GOOD + "  graceAs: fine\n", "`fine` is not a `graceAs`; one of compliant, unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + spec))


def test_two_inventories_for_one_workload_are_a_fault() -> None:
    assert "may select the same workload" in "\n".join(faults(HEAD + GOOD, HEAD.replace("fleet", "other") + GOOD))
