"""What the tests of k8s/ share: the programs they need, or why they are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.k8s.manifests import find_tool

if TYPE_CHECKING:
    from pathlib import Path


def _tool(name: str) -> Path:
    found = find_tool(name)
    if found is None:
        pytest.skip(f"no {name}: run `make tools`, or name one in {name.upper()}")
    return found


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """kubectl, for its kustomize; without it the test is skipped and says how to get it."""
    return _tool("kubectl")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """promtool; without it the test is skipped and says how to get it."""
    return _tool("promtool")
