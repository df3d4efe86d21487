"""The soak, short: half a minute of everything at once gives no wrong verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy.demo.envoyproc import NOT_FOUND, find_envoy
from tests.soak.run import soak

if TYPE_CHECKING:
    from pathlib import Path

import pytest

pytestmark = pytest.mark.load

SECONDS = 25.0


def test_half_a_minute_of_reloads_rotations_and_deaths_gives_no_wrong_verdict(tmp_path: Path) -> None:
    if find_envoy() is None:
        pytest.skip(NOT_FOUND)
    assert soak(tmp_path, SECONDS) == []
