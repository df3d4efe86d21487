"""The placeholders in `k8s/`. These tests are not in tests/k8s, which users run after they replaced them."""

from __future__ import annotations

import re

from tests.k8s.manifests import K8S


def test_nothing_that_is_to_be_changed_looks_as_if_it_would_work() -> None:
    """A digest of zeros never starts, so nobody runs a placeholder by accident."""
    digests = {
        digest
        for path in K8S.rglob("*.yaml")
        for digest in re.findall(r"sha256:([0-9a-f]{64})", path.read_text(encoding="utf-8"))
    }
    assert digests == {"0" * 64}
