"""What mints tokens, as the settings say."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.support.minting import ISSUER, KEY, allowed, key_pem, terms, user
from tests.support.pki import NOW
from zta_authz.errors import SettingsErrors
from zta_authz.model.identity import Identity
from zta_authz.service.minting import Minting
from zta_authz.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path


def minting(folder: Path, keys: str = "keys: [{file: key.pem}]") -> Minting:
    (folder / "key.pem").write_bytes(key_pem())
    (folder / "keys.yaml").write_text(keys, encoding="utf-8")
    settings = {"minting": {"issuer": ISSUER, "keys": str(folder / "keys.yaml")}}
    return Minting(parse_settings("settings.yaml", json.dumps(settings), {}), lambda: NOW)


def test_the_keys_in_the_files_sign_and_are_published(tmp_path: Path) -> None:
    subject = minting(tmp_path)
    assert subject.minter is not None
    assert subject.minter.mint(allowed(Identity(None, user()), terms()), "0" * 32, NOW).minted is not None
    published = subject.published()
    assert published is not None
    assert [key["kid"] for key in json.loads(published)["keys"]] == [KEY.key_id]
    assert subject.ends() == {ISSUER: inf}


@pytest.mark.parametrize(
    ("times", "end"),
    [('signUntil: "2100-01-01T00:00:00Z"', 4102444800.0), ('signFrom: "2100-01-01T00:00:00Z"', 0.0)],
)
def test_the_end_of_signing_is_shown_and_zero_while_nothing_signs(tmp_path: Path, times: str, end: float) -> None:
    assert minting(tmp_path, f"keys: [{{file: key.pem, {times}}}]").ends() == {ISSUER: end}


async def test_without_an_issuer_nothing_is_minted() -> None:
    subject = Minting(parse_settings("settings.yaml", "{}", {}), lambda: NOW)
    assert (subject.minter, subject.published(), subject.ends()) == (None, None, {})
    subject.start()
    subject.ask()
    await subject.close()


def test_bad_keys_prevent_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsErrors, match="cannot be read"):
        minting(tmp_path, "keys: [{file: absent.pem}]")
