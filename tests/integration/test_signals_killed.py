"""A receiver of security events that is killed while they are pushed: every acknowledged event is in the store."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientError, ClientSession

from tests.support.pki import jwks
from tests.support.security_events import ALICE, SESSION_REVOKED, SIGNER, claims, signed
from tests.support.signal_receiver import PATH, SECRET
from zta_authz.administrator.access_events import EventKind, read_event
from zta_authz.administrator.store.port import read_items
from zta_authz.administrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = {"Authorization": SECRET, "Content-Type": "application/secevent+jwt"}
EVENTS = 40


def pushes() -> dict[str, bytes]:
    """SETs for different subjects, by their `jti`."""
    now = int(time.time())
    payloads: list[dict[str, Any]] = [
        claims(
            iat=now, sub_id=ALICE | {"sub": f"user-{number}"}, events={SESSION_REVOKED: {"event_timestamp": now - 1}}
        )
        for number in range(EVENTS)
    ]
    return {payload["jti"]: signed(payload) for payload in payloads}


async def push_until_killed(store: Path, sets: dict[str, bytes], kill_after: int) -> set[str]:
    """Push `sets` eight at a time to a process that is killed after `kill_after` answers. Returns those with 202."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.signal_receiver", str(store),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(jwks([SIGNER]).replace("\n", " ").encode() + b"\n")
    port = int(await process.stdout.readline())
    accepted: set[str] = set()
    eight = asyncio.Semaphore(8)

    async def push(session: ClientSession, jti: str, data: bytes) -> None:
        async with eight:
            try:
                async with session.post(f"http://127.0.0.1:{port}{PATH}", data=data, headers=HEADERS) as response:
                    assert response.status == 202, await response.text()
                    accepted.add(jti)
            except (ClientError, OSError):
                return
            if len(accepted) == kill_after:
                process.kill()

    async with ClientSession() as session:
        await asyncio.gather(*(push(session, jti, data) for jti, data in sets.items()))
    if process.returncode is None:
        process.kill()
    await process.wait()
    return accepted


@pytest.mark.parametrize("kill_after", [1, 17])
async def test_no_acknowledged_event_is_lost_and_none_counts_twice(tmp_path: Path, kill_after: int) -> None:
    path, sets = tmp_path / "store.db", pushes()
    accepted = await push_until_killed(path, sets, kill_after)
    assert kill_after <= len(accepted) < EVENTS
    accepted |= await push_until_killed(path, {jti: data for jti, data in sets.items() if jti not in accepted}, EVENTS)
    assert accepted == set(sets)
    store = await SqliteStore.open(str(path))
    await store.epoch()
    _, revocations = await read_items(store, "view/revocation/")
    events = [read_event(event) for commit in await store.read_since(0) for event in commit.events]
    await store.close()
    recorded = [event.object.id for event in events if event.kind is EventKind.SIGNAL_ACCEPTED]
    assert sorted(recorded) == sorted(sets)
    assert len(revocations) == EVENTS
