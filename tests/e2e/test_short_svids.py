"""SVIDs that live for seconds, signed by intermediates that change, through the real Envoy: no answer is wrong.

`make test-spire` runs the same for minutes, and with SPIRE itself where it is given.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.spire.lab import EXPECTED, OURS, PARTNER, running
from tests.spire.mint import Mint

if TYPE_CHECKING:
    from pathlib import Path

TTL = 8.0


@pytest.mark.parametrize("server", ["grpcio", "fast"])
def test_proxies_outlive_their_svids_and_no_answer_is_wrong(envoy_binary: Path, tmp_path: Path, server: str) -> None:
    with closing(Mint(tmp_path / "agent.sock", TTL, OURS, PARTNER)) as mint:
        mint.ours.rotate_intermediate()
        mint.tell()
        with running(tmp_path, mint, envoy_binary, server) as lab:
            lab.run(1.3 * TTL)
            mint.ours.rotate_intermediate()
            mint.tell()
            lab.run(0.7 * TTL)
            mint.kill_agent()
            lab.run(1)
            mint.start_agent()
            lab.run(1)
    assert lab.wrong == [], f"{lab.summary()}\n{lab.log()}"
    assert min(lab.answers[name] for name in EXPECTED) > 10
