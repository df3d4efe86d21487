"""Our SVID, its rotation and federated bundles from SPIRE's own server and agent.

Runs where `make test-spire` asks for it: that installs SPIRE, which takes minutes and a Go module proxy that has it.
SPIRE_BIN names a directory with `spire-server` and `spire-agent` instead.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.spire.real import Spire
from zta_authz.authn.bundle_formats import read_spiffe_text
from zta_authz.keys.bundle_endpoint import BundleEndpoint, fetch_bundle
from zta_authz.keys.trust import TrustRefresher, TrustSources
from zta_authz.model.spiffe import SpiffeId, TrustDomain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)
OURS, PARTNER = "zta.test", "partner.test"
US = f"spiffe://{OURS}/authz"


@pytest.fixture(scope="module")
def spires(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Spire, Spire]]:
    """Our trust domain's SPIRE, and a partner's; ours knows the partner's bundle."""
    base = tmp_path_factory.mktemp("spire")
    with Spire(programs, base / "ours", OURS) as ours, Spire(programs, base / "partner", PARTNER) as partner:
        bundle = base / "partner.json"
        bundle.write_text(partner.server("bundle", "show", "-format", "spiffe").stdout)
        ours.server("bundle", "set", "-id", f"spiffe://{PARTNER}", "-format", "spiffe", "-path", str(bundle))
        yield ours, partner


@pytest.fixture(scope="module")
def agent(spires: tuple[Spire, Spire]) -> str:
    """Our agent's Workload API, at which we are registered by our uid."""
    ours, _ = spires
    address = ours.start_agent()
    ours.server(
        *("entry", "create", "-parentID", f"spiffe://{OURS}/agent", "-spiffeID", US),
        *("-selector", f"unix:uid:{os.getuid()}", "-x509SVIDTTL", "30", "-federatesWith", f"spiffe://{PARTNER}"),
    )
    return address


async def until(is_so: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - other programs' state
            await asyncio.sleep(0.1)


@asynccontextmanager
async def following(address: str) -> AsyncIterator[TrustRefresher]:
    keeper = TrustRefresher(TrustSources(agent=address, agent_bundles=True, agent_svid=True))
    await keeper.start()
    try:
        yield keeper
    finally:
        await keeper.close()


async def test_the_agent_gives_us_an_svid_and_renews_it(agent: str) -> None:
    async with following(agent) as keeper:
        await until(lambda: keeper.current_svid() is not None, 60)
        first = keeper.current_svid()
        assert first is not None
        assert str(first.spiffe_id) == US
        await until(lambda: keeper.current_svid() is not first, 60)
        second = keeper.current_svid()
        assert second is not None
        assert second.window.not_after > first.window.not_after
        assert second.key_pem != first.key_pem


async def test_the_agent_gives_us_our_bundle_and_the_federated_one(agent: str) -> None:
    async with following(agent) as keeper:
        await until(lambda: keeper.store.slot.current.keys() == {OURS, PARTNER}, 60)
        await until(lambda: bool(keeper.store.slot.current[OURS].jwt_keys.keys), 60)
        assert all(found.anchors for found in keeper.store.slot.current.values())


async def test_the_partners_bundle_endpoint_is_authenticated_by_its_svid(spires: tuple[Spire, Spire]) -> None:
    _, partner = spires
    shown = await asyncio.to_thread(partner.server, "bundle", "show", "-format", "spiffe")
    domain = TrustDomain(PARTNER)
    known, wrong = read_spiffe_text(domain, shown.stdout.encode())
    assert wrong == ()
    endpoint = BundleEndpoint(
        domain, f"https://127.0.0.1:{partner.endpoint_port}/", SpiffeId.parse(f"spiffe://{PARTNER}/spire/server")
    )
    fetched = await fetch_bundle(endpoint, {PARTNER: known.authorities})  # type: ignore[arg-type]  # any mapping does
    assert json.loads(fetched)["keys"]
    assert read_spiffe_text(domain, fetched)[0].authorities.anchors == known.authorities.anchors
