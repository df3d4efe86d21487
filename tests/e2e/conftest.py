"""What the end-to-end tests share: the real Envoy, and everything around it, started once a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envoy.demo.envoyproc import NOT_FOUND, find_envoy
from envoy.demo.stack import StackOptions, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """The real Envoy; without it the test is skipped and says how to get it."""
    binary = find_envoy()
    if binary is None:
        pytest.skip(NOT_FOUND)
    return binary


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack: Envoy, zta-authz and an upstream, nobody's requests sent yet."""
    with running(tmp_path_factory.mktemp("stack"), StackOptions(envoy=envoy_binary)) as started:
        yield started
