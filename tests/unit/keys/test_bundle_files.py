"""Bundles in files: all faults are reported at start; later the last good bundle stays."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.pki import root
from zta_authz.errors import SettingsErrors
from zta_authz.keys.bundle_files import BundleFile, BundleFiles
from zta_authz.keys.bundle_store import BundleStore
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

A = "a.example"
FIRST, SECOND = root("first"), root("second")


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - a file has no event to wait for
            await asyncio.sleep(0.01)


def test_every_invalid_file_is_a_fault_at_start(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / "leaf").write_text(FIRST.pem + "-----BEGIN")
    os.mkfifo(tmp_path / "pipe")
    names = ("missing", "garbage", "leaf", "pipe", "")
    files = [BundleFile(TrustDomain(A), str(tmp_path / name)) for name in names]
    with pytest.raises(SettingsErrors) as caught:
        BundleFiles(files, BundleStore({})).load()
    assert {fault.source for fault in caught.value.faults} == {file.path for file in files}


async def test_a_changed_file_is_loaded_and_an_invalid_one_keeps_the_last_good_bundle(tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    path.write_text(FIRST.pem)
    store = BundleStore({})
    files = BundleFiles([BundleFile(TrustDomain(A), str(path))], store, poll_seconds=0.01)
    files.load()
    task = asyncio.create_task(files.run())
    try:
        before = store.slot.current
        await asyncio.sleep(0.05)
        assert store.slot.current is before  # what has not changed is not read again

        (tmp_path / "next").write_text(SECOND.pem)
        os.replace(tmp_path / "next", path)  # as kubelet and careful operators do
        await until(lambda: store.slot.current[A].anchors == (SECOND.certificate,))

        for bad in ("garbage", None, ""):
            if bad is None:
                path.unlink()
            else:
                path.write_text(bad)
            await asyncio.sleep(0.05)
            assert store.slot.current[A].anchors == (SECOND.certificate,)

        path.write_text(FIRST.pem)
        await until(lambda: store.slot.current[A].anchors == (FIRST.certificate,))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
