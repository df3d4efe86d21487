"""The expiry of our own certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import pki
from zta_authz.servers.own_certificate import file_expires_at

if TYPE_CHECKING:
    from pathlib import Path


def test_the_expiry_is_that_of_the_leaf_not_of_its_issuer(tmp_path: Path) -> None:
    authority = pki.root()
    leaf = authority.issue()
    file = tmp_path / "chain.pem"
    file.write_text(pki.pem(leaf) + authority.pem)
    assert file_expires_at(file) == leaf.not_valid_after_utc.timestamp()
    assert leaf.not_valid_after_utc != pki.root().certificate.not_valid_after_utc


def test_a_missing_or_unreadable_file_has_no_expiry(tmp_path: Path) -> None:
    assert file_expires_at(tmp_path / "gone.pem") is None
    (tmp_path / "empty.pem").write_text("nothing\n")
    assert file_expires_at(tmp_path / "empty.pem") is None
