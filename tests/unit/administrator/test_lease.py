"""One replica has a lease at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.administrator.lease import Lease
from zta_authz.administrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path


async def test_one_replica_has_the_lease_until_its_window_ends(tmp_path: Path) -> None:
    now = [1000.0]
    store = await SqliteStore.open(str(tmp_path / "store.db"), clock=lambda: now[0])
    await store.epoch()
    one, other = Lease(store, "lease/a", "one", 10.0), Lease(store, "lease/a", "other", 10.0)
    elsewhere = Lease(store, "lease/b", "other", 10.0)
    assert await one.hold() == (True, 10.0, True)
    assert await other.hold() == (False, 10.0, False)
    assert await elsewhere.hold() == (True, 10.0, True)
    now[0] = 1009.0
    assert await one.hold() == (True, 1.0, False)
    assert await other.hold() == (False, 1.0, False)
    now[0] = 1010.0
    assert await other.hold() == (True, 10.0, True)
    assert await one.hold() == (False, 10.0, False)
    await one.release()
    assert await one.hold() == (False, 10.0, False)
    await other.release()
    assert await one.hold() == (True, 10.0, True)
    now[0] = 2000.0
    await one.release()
    await store.close()
