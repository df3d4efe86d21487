"""Minutes of load while SVIDs of a minute are renewed, authorities rotate and are revoked, and agent and server die.

`make test-spire` runs it, with SPIRE itself where it can be had (its workloads are users, so as root), and with the
tests' own Workload API. LAB_SECONDS is how long each runs at least.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envoy.demo.envoyproc import NOT_FOUND, find_envoy
from tests.spire.issuing import SpireIssuance
from tests.spire.lab import EXPECTED, OURS, PARTNER, running
from tests.spire.mint import Mint

if TYPE_CHECKING:
    from collections.abc import Iterator

LAB_SECONDS = float(os.environ.get("LAB_SECONDS", "600"))
TTL = 60.0
AWAY_SECONDS = 5.0

pytestmark = [
    pytest.mark.timeout(LAB_SECONDS + 900),
    pytest.mark.skipif("SPIRE_TESTS" not in os.environ, reason="takes minutes: run `make test-spire`"),
]


@contextmanager
def made(kind: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """What issues."""
    if kind == "own":
        with closing(Mint(directory / "agent.sock", TTL, OURS, PARTNER)) as mint:
            mint.ours.rotate_intermediate()
            mint.tell()
            yield mint
        return
    programs = request.getfixturevalue("programs")
    if os.getuid() != 0:
        pytest.skip("each workload is a user of its own: run it as root")
    with ExitStack() as cleanup:
        yield SpireIssuance(programs, directory, cleanup)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that other users may enter, with a short name for sockets."""
    path = Path(tempfile.mkdtemp(prefix="zta-spire-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("server", ["grpcio", "fast"])
@pytest.mark.parametrize("kind", ["own", "spire"])
def test_no_answer_is_wrong_whatever_rotates_and_dies(
    kind: str, server: str, directory: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    envoy = find_envoy()
    if envoy is None:
        pytest.skip(NOT_FOUND)
    with made(kind, directory, request) as issuance, running(tmp_path, issuance, envoy, server) as lab:
        until = time.monotonic() + LAB_SECONDS
        issuance.rotate_authority(lab.run)
        for kill, start in (
            (issuance.kill_agent, issuance.start_agent),
            (issuance.kill_server, issuance.start_server),
        ):
            kill()
            lab.run(AWAY_SECONDS)
            start()
            lab.run(TTL / 2)
        while time.monotonic() < until:
            issuance.rotate_intermediate(lab.run)
        assert lab.wrong == [], f"{lab.summary()}\n{lab.log()}"
        assert min(lab.answers[name] for name in EXPECTED) > LAB_SECONDS
        told = dict(lab.answers)
        issuance.forget_partner()
        deadline, refused = time.monotonic() + 30, 0
        while refused < 20:  # Envoy's threads and zta-authz hear of it one after the other
            refused = 0 if lab.status(f"{PARTNER}/orders") == 200 else refused + 1
            assert time.monotonic() < deadline
            time.sleep(0.1)
        seen = {lab.status(f"{PARTNER}/orders") for _ in range(50)}
        assert not seen & {200}
    print(f"{kind} {server}: {told}, wrong: none")  # noqa: T201  what make test-spire shows with -s
