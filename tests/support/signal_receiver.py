"""Runs a push receiver over a SQLite store as a process: `python -m tests.support.signal_receiver STORE`; writes its port."""

from __future__ import annotations

import asyncio
import sys

from tests.support.security_events import source
from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.receiver import PushReceiver, PushSource
from zta_authz.administrator.signals.runtime import SourceRuntime
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.authn.keys import parse_jwks

SECRET = "Bearer push-secret"
PATH = "/signals/istio-system/idp"


async def serve(path: str, keys: str) -> None:
    """Serve until killed."""
    store = await SqliteStore.open(path)
    await store.epoch()
    runtime = SourceRuntime(source(max_subjects=1_000_000), Intake(store))
    runtime.slot.current = parse_jwks(keys)[0]
    receiver = PushReceiver("127.0.0.1", 0)
    receiver.sources = {"istio-system/idp": PushSource(runtime, SECRET)}
    sys.stdout.write(f"{await receiver.start()}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.stdin.readline()))
