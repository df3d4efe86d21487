"""Lists of signing keys in files: what is accepted, every fault, and how changes come into force."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.minting import key_pem, signing_key
from tests.support.pki import NOW
from zta_authz.errors import SettingsErrors
from zta_authz.keys.signing_keys import MAX_KEYS, MAX_LIST_BYTES, SigningKeyFiles, read_signing_keys
from zta_authz.minting.key_states import KeyRing, KeyState

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = signing_key("P-256", 0), signing_key("Ed25519", 0)
ONE = "keys: [{file: old.pem}]"
BOTH = """
keys:
- {file: new.pem, signFrom: "2100-01-01T00:00:00Z"}
- {file: old.pem, signUntil: "2100-01-02T00:00:00Z"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old.pem").write_bytes(key_pem("P-256", 0))
    (tmp_path / "new.pem").write_bytes(key_pem("Ed25519", 0))
    (tmp_path / "rsa.pem").write_bytes(key_pem("RSA-2048"))
    return tmp_path


def listed(folder: Path, text: str) -> str:
    (folder / "keys.yaml").write_text(text, encoding="utf-8")
    return str(folder / "keys.yaml")


def test_the_keys_of_a_list_have_their_times(folder: Path) -> None:
    ring, stamps = read_signing_keys(listed(folder, BOTH))
    assert ring.states(NOW) == {OLD.key_id: KeyState.CURRENT, NEW.key_id: KeyState.NEXT}
    assert {name.rpartition("/")[2] for name in stamps} == {"keys.yaml", "old.pem", "new.pem"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not one list of keys"),
        ("keys: []", "`keys` is an empty list"),
        ("[]", "the list of signing keys"),
        ("key: []", "did you mean `keys`?"),
        (f"{ONE}\n---\n{ONE}", "is not one list of keys"),
        ("keys: [{}]", "an entry of `keys` has no `file`"),
        ("keys: [{file: ../old.pem}]", "is not the name of a file beside this one"),
        ("keys: [{file: /etc/shadow}]", "is not the name of a file beside this one"),
        ("keys: [{file: ..}]", "is not the name of a file beside this one"),
        ("keys: [{file: absent.pem}]", "absent.pem: cannot be read"),
        ("keys: [{file: keys.yaml}]", "is not a private key in PEM"),
        ("keys: [{file: rsa.pem}]", "is neither a P-256 nor an Ed25519 key"),
        ("keys: [{file: old.pem, signfrom: x}]", "did you mean `signFrom`?"),
        ("keys: [{file: old.pem, signFrom: soon}]", "`signFrom` is not a time"),
        ("keys: [{file: old.pem}, {file: new.pem}]", "two keys begin to sign at the same time"),
        (
            'keys: [{file: old.pem}, {file: old.pem, signFrom: "2027-01-01T00:00:00Z"}]',
            "the same key is listed twice",
        ),
        (
            'keys: [{file: old.pem, signFrom: "2027-01-01T00:00:00Z", signUntil: "2027-01-01T00:00:00Z"}]',
            "the key stops signing before it begins",
        ),
        (f"keys: [{', '.join(['{file: old.pem}'] * (MAX_KEYS + 1))}]", f"more than {MAX_KEYS} entries"),
        ("#" * (MAX_LIST_BYTES + 1), f"has more than {MAX_LIST_BYTES} bytes"),
    ],
)  # fmt: skip
def test_each_fault_of_a_list_is_named(folder: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsErrors) as caught:
        read_signing_keys(listed(folder, text))
    assert fault in str(caught.value)


def test_a_list_that_is_not_utf8_is_a_fault(folder: Path) -> None:
    (folder / "keys.yaml").write_bytes(b"\xff")
    with pytest.raises(SettingsErrors, match="is not UTF-8"):
        read_signing_keys(str(folder / "keys.yaml"))


def test_a_fault_has_its_position_and_nothing_of_the_key(folder: Path) -> None:
    (folder / "bad.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", encoding="utf-8"
    )
    with pytest.raises(SettingsErrors) as caught:
        read_signing_keys(listed(folder, "keys:\n- file: bad.pem"))
    [fault] = caught.value.faults
    assert (fault.line, fault.column) == (2, 3)
    assert "c2VjcmV0" not in str(fault)


class Files:
    """The keys of a folder, and the rings that were published."""

    def __init__(self, folder: Path) -> None:
        self.rings: list[KeyRing] = []
        self.files = SigningKeyFiles(str(folder / "keys.yaml"), self.rings.append, lambda: NOW)
        self.files.load()

    def refresh(self) -> KeyRing:
        asyncio.run(self.files.refresh())
        return self.rings[-1]


def test_changed_keys_come_into_force_and_unchanged_files_are_not_read_again(folder: Path) -> None:
    listed(folder, ONE)
    subject = Files(folder)
    assert subject.refresh() is subject.rings[0]
    listed(folder, BOTH)
    assert set(subject.refresh().states(NOW)) == {OLD.key_id, NEW.key_id}
    (folder / "old.pem").write_bytes(key_pem("P-256", 1))
    assert set(subject.refresh().states(NOW)) == {signing_key("P-256", 1).key_id, NEW.key_id}


def test_refused_keys_leave_the_last_good_ones_in_force_until_they_are_corrected(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed(folder, ONE)
    subject = Files(folder)
    listed(folder, "keys: [{file: later.pem}]")
    assert subject.refresh() is subject.rings[0]
    assert subject.refresh() is subject.rings[0]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [error.partition(":")[0] for error in errors] == ["the changed signing keys are refused"]  # once
    (folder / "later.pem").write_bytes(key_pem("P-256", 1))  # the list itself did not change
    assert list(subject.refresh().states(NOW)) == [signing_key("P-256", 1).key_id]


def test_a_new_key_that_signs_before_applications_know_it_is_warned_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed(folder, ONE)
    subject = Files(folder)
    listed(folder, BOTH)
    subject.refresh()
    assert not caplog.records
    (folder / "third.pem").write_bytes(key_pem("P-256", 1))
    listed(folder, f'{BOTH}- {{file: third.pem, signFrom: "2020-01-01T00:00:00Z"}}')
    subject.refresh()
    assert "applications may not have fetched it" in caplog.text


def test_a_list_without_a_key_in_force_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed(folder, 'keys: [{file: old.pem, signUntil: "2001-01-01T00:00:00Z"}]')
    Files(folder)
    assert "no signing key is in force" in caplog.text


def test_changes_are_seen_by_polling_and_when_asked_for(folder: Path) -> None:
    listed(folder, ONE)
    subject = Files(folder)

    async def run() -> None:
        for seconds in (0.01, None):
            subject.files.start(seconds)
            before = len(subject.rings)
            listed(folder, BOTH if before == 1 else ONE)
            async with asyncio.timeout(10):
                while len(subject.rings) == before:
                    if seconds is None:
                        subject.files.ask()
                    await asyncio.sleep(0.01)
            await subject.files.close()

    asyncio.run(run())
    assert [len(ring.keys) for ring in subject.rings] == [1, 2, 1]
