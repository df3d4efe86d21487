"""Fixtures of the end-to-end tests: the real Envoy and the demo's stack, started once per module."""

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
    """The Envoy binary. Without it, the test is skipped with a hint."""
    binary = find_envoy()
    if binary is None:
        pytest.skip(NOT_FOUND)
    return binary


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack: Envoy, zta-authz and an upstream."""
    with running(tmp_path_factory.mktemp("stack"), StackOptions(envoy=envoy_binary)) as started:
        yield started
