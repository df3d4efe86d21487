"""The table of devices finds what was added, in any order and number, and says where records contradict each other."""

from __future__ import annotations

from hypothesis import given, strategies as st

from zta_authz.facts.device_table import Device, DeviceRows
from zta_authz.model.pace import no_pause
from zta_authz.policy.rules.device_identity import BY_CERTIFICATE, BY_ID

NAMES = st.text("\0\1/ab", min_size=1, max_size=5)
VALUES = (True, "macOS")


def rows(*records: tuple[str, str]) -> DeviceRows:
    """Devices with these ids and certificates."""
    made = DeviceRows()
    for device_id, certificate in records:
        made.add(device_id, VALUES, 1.0, None, certificate)
    return made


def test_a_device_is_found_by_its_id_and_by_its_certificate() -> None:
    held = rows(("a", "spiffe://x/1"), ("b", ""), ("c", "other"))
    device = Device("a", VALUES, 1.0, None, conflicting=False, shared=False)
    assert held[BY_ID + "a"] == held[BY_CERTIFICATE + "spiffe://x/1"] == device
    assert held[BY_CERTIFICATE + "other"].device_id == "c"
    assert list(held) == [
        BY_ID + "a",
        BY_ID + "b",
        BY_ID + "c",
        BY_CERTIFICATE + "spiffe://x/1",
        BY_CERTIFICATE + "other",
    ]
    assert (held.size, len(held)) == (3, 5)


@given(st.lists(st.tuples(NAMES, st.one_of(st.just(""), NAMES)), max_size=40), NAMES)
def test_the_table_says_what_a_plain_dict_says(records: list[tuple[str, str]], other: str) -> None:
    ids, certificates = {device_id for device_id, _ in records}, dict[str, set[str]]()
    for device_id, certificate in records:
        if certificate:
            certificates.setdefault(certificate, set()).add(device_id)
    held = rows(*records)
    assert set(held) == {BY_ID + name for name in ids} | {BY_CERTIFICATE + name for name in certificates}
    shared = {device_id for devices in certificates.values() if len(devices) > 1 for device_id in devices}
    all_ids = [device_id for device_id, _ in records]
    for device_id in ids:
        device = held[BY_ID + device_id]
        assert (device.device_id, device.shared) == (device_id, device_id in shared)
        assert device.conflicting is (device.shared or all_ids.count(device_id) > 1)
    for certificate, devices in certificates.items():
        assert held[BY_CERTIFICATE + certificate].device_id in devices
    assert (held.get(BY_ID + other) is None) is (other not in ids)
    assert (held.get(BY_CERTIFICATE + other) is None) is (other not in certificates)
    assert held.get(other) is None


def test_a_table_of_any_size_finds_each_name_and_no_other() -> None:
    held = rows(*((f"d{number}", f"spiffe://x/{number}") for number in range(1000)))
    found = [held[BY_ID + f"d{number}"] for number in range(1000)]
    assert [device.device_id for device in found] == [f"d{number}" for number in range(1000)]
    assert all(held[BY_CERTIFICATE + f"spiffe://x/{number}"] == found[number] for number in range(1000))
    assert held.get(BY_ID + "d1000") is None
    assert held.get(BY_CERTIFICATE + "1") is None


def test_a_released_table_finds_nothing_and_pauses_after_each_name() -> None:
    held, pauses = rows(("a", "x"), ("b", "y")), list[None]()
    held.release(lambda: pauses.append(None))
    assert len(pauses) == 4
    assert [held.get(BY_ID + "a"), held.get(BY_CERTIFICATE + "y")] == [None, None]
    held.release(no_pause)
