"""Who calls, as the listeners know: local users, and certificates of the trust domain that name no local user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.following.test_connection import Pair
from zta_authz.administrator.local_callers import HttpCallers, operators, user_namer
from zta_authz.servers.fast.tls import UnauthorizedPeer

if TYPE_CHECKING:
    from pathlib import Path


def test_a_local_user_has_a_spiffe_id_that_no_certificate_has() -> None:
    name = user_namer("cluster.local")(1000)
    assert name == "spiffe://cluster.local/zta-admin/uid/1000"
    admitted = operators(["cluster.local", "old.local"])
    assert name not in admitted
    assert "spiffe://old.local/zta-admin/uid/0" not in admitted
    assert "spiffe://old.local/ns/ci/sa/deployer" in admitted


def test_a_connection_that_is_closed_has_no_caller() -> None:
    callers = HttpCallers("cluster.local", None)
    assert callers.context is None
    with pytest.raises(UnauthorizedPeer):
        callers.principal(None)


class Damaged:
    """A connection whose certificate makes everything fail."""

    def get_extra_info(self, name: str) -> Any:
        return self if name == "ssl_object" else None

    def getpeercert(self, *, binary_form: bool) -> bytes:
        assert binary_form
        return b"x"

    def version(self) -> str:
        raise RuntimeError("damaged")


def test_a_certificate_that_cannot_be_judged_names_nobody(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    damaged: Any = Damaged()
    with pytest.raises(UnauthorizedPeer):
        HttpCallers("cluster.local", pair.administrator.mutual_tls()).principal(damaged)
