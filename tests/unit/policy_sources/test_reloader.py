"""Changed policies are loaded, invalid ones refused, and a burst of changes costs only a few reloads."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.configmap import ConfigMapMount, allow_path, replace_by_rename
from tests.support.policies import STRICT, request
from zta_authz.model.request import NO_EVIDENCE
from zta_authz.pdp.decide import evaluate
from zta_authz.policy_sources import reloader as module
from zta_authz.policy_sources.compile_executor import CompileExecutor
from zta_authz.policy_sources.files import SnapshotHolder, load_snapshot
from zta_authz.policy_sources.pacing import CooperativePause
from zta_authz.policy_sources.reloader import PolicyReloader, PolicySet
from zta_authz.policy_sources.watcher import WatchTiming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from zta_authz.errors import Fault
    from zta_authz.pdp.snapshot import Snapshot

TIMING = WatchTiming(poll=0.02, debounce=0.02)
BROKEN = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {rulez: []}\n"


class ReloadedPolicies:
    """A set of policies under `paths`, and the callbacks that were called."""

    def __init__(self, *paths: Path) -> None:
        self.paths = [str(path) for path in paths]
        self.holder = SnapshotHolder()
        self.holder.publish(load_snapshot(self.paths, STRICT))
        self.applied: list[Snapshot] = []
        self.refused: list[Sequence[Fault]] = []
        self.unchanged = 0
        self.prepared: list[Snapshot] = []
        self.reloader: PolicyReloader

    def apply(self, snapshot: Snapshot) -> None:
        self.applied.append(snapshot)
        self.holder.publish(snapshot)

    async def prepare(self, snapshot: Snapshot) -> None:
        assert snapshot not in self.applied
        await asyncio.sleep(0)
        self.prepared.append(snapshot)

    def on_unchanged(self) -> None:
        self.unchanged += 1

    def allows(self, path: str) -> bool:
        snapshot = self.holder.current()
        assert snapshot is not None
        return evaluate(snapshot, request(path=path), NO_EVIDENCE, time.time()).allowed

    async def until(self, reached: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not reached():  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.01)


@asynccontextmanager
async def reloading(*paths: Path, watches: bool = True) -> AsyncIterator[ReloadedPolicies]:
    it = ReloadedPolicies(*paths)
    executor = CompileExecutor(CooperativePause(rest=0.0))
    policies = PolicySet(
        "policies", it.paths, it.holder.current, it.apply, it.refused.append, it.on_unchanged, it.prepare
    )
    it.reloader = PolicyReloader(policies, STRICT, TIMING, executor)
    it.reloader.start(watches=watches)
    await it.until(lambda: it.unchanged == watches)  # at the start the files match the policies in force
    try:
        yield it
    finally:
        await it.reloader.close()
        executor.close()


async def test_a_swapped_configmap_is_loaded_as_a_whole(tmp_path: Path) -> None:
    mount = ConfigMapMount(tmp_path / "mount", {"a.yaml": allow_path("a", "/a"), "b.yaml": allow_path("b", "/b")})
    async with reloading(mount.path) as it:
        assert it.allows("/a")
        assert it.allows("/b")
        mount.update({"a.yaml": allow_path("a", "/new"), "c.yaml": allow_path("c", "/c")})
        await it.until(lambda: bool(it.applied))
        assert it.allows("/new")
        assert it.allows("/c")
        assert not it.allows("/a")
        assert not it.allows("/b")
        assert len(it.applied) == 1
        assert it.prepared == it.applied
        assert it.refused == []


async def test_a_plain_file_is_loaded_however_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(allow_path("p", "/one"))
    async with reloading(file) as it:
        file.write_text(allow_path("p", "/two"))
        await it.until(lambda: it.allows("/two"))
        replace_by_rename(file, allow_path("p", "/six"))
        await it.until(lambda: it.allows("/six"))
        assert len(it.applied) == 2


async def test_files_that_appear_and_disappear_in_a_directory_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(allow_path("a", "/a"))
    async with reloading(tmp_path) as it:
        (tmp_path / "b.yaml").write_text(allow_path("b", "/b"))
        await it.until(lambda: it.allows("/b"))
        (tmp_path / "a.yaml").unlink()
        await it.until(lambda: not it.allows("/a"))


async def test_new_files_in_a_subdirectory_are_loaded_and_skipped_names_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "a.yaml").write_text(allow_path("a", "/a"))
    async with reloading(tmp_path) as it:
        (tmp_path / "team").mkdir()
        (tmp_path / "team" / "b.txt").write_text(allow_path("c", "/c"))
        (tmp_path / "team" / "b.JSON").write_text(allow_path("b", "/b"))
        await it.until(lambda: it.allows("/b"))
        assert not it.allows("/c")
        assert any(f"{tmp_path}/team/b.txt: is not read as policies" in message for message in caplog.messages)
        (tmp_path / "team" / "b.JSON").write_text(allow_path("b", "/d"))
        await it.until(lambda: it.allows("/d"))


async def test_an_invalid_version_changes_nothing_and_the_corrected_one_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount = ConfigMapMount(tmp_path / "mount", {"a.yaml": allow_path("a", "/a")})
    async with reloading(mount.path) as it:
        with caplog.at_level(logging.INFO):
            mount.update({"a.yaml": BROKEN, "b.yaml": BROKEN.replace("rulez", "rulex").replace("name: x", "name: two")})
            await it.until(lambda: bool(it.refused))
        assert it.allows("/a")
        assert [fault.source.rpartition("/")[2] for fault in it.refused[-1]] == ["a.yaml", "b.yaml"]
        messages = [record.message for record in caplog.records]
        assert any("a.yaml:4:8" in line and "rulez" in line for line in messages)
        assert any("b.yaml:4:8" in line and "rulex" in line for line in messages)
        assert "policy_reload_failed" in messages
        mount.update({"a.yaml": allow_path("a", "/mended")})
        await it.until(lambda: it.allows("/mended"))


async def test_going_back_to_the_set_in_force_ends_the_failure_without_compiling(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(allow_path("a", "/a"))
    async with reloading(file) as it:
        file.write_text(BROKEN)
        await it.until(lambda: bool(it.refused))
        file.write_text(allow_path("a", "/a"))
        await it.until(lambda: it.unchanged == 2)
        assert it.applied == []


async def test_the_same_invalid_text_is_reported_again_but_not_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(allow_path("a", "/a"))
    async with reloading(file) as it:
        file.write_text(BROKEN)
        await it.until(lambda: len(it.refused) == 1)
        monkeypatch.setattr(module, "compile_snapshot", lambda *_: pytest.fail("compiled again"))
        replace_by_rename(file, BROKEN)
        await it.until(lambda: len(it.refused) == 2)
        assert it.refused[0] == it.refused[1]


async def test_the_last_good_set_survives_its_directory_and_the_next_one_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(allow_path("a", "/a"))
    async with reloading(folder) as it:
        shutil.rmtree(folder)
        await it.until(lambda: bool(it.refused))
        assert it.allows("/a")
        folder.mkdir()
        await it.until(lambda: "holds no policy files" in it.refused[-1][0].message)
        (folder / "a.yaml").write_text(allow_path("a", "/again"))
        await it.until(lambda: it.allows("/again"))


async def test_a_file_that_becomes_readable_is_not_mistaken_for_the_refused_set(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(allow_path("a", "/a"))
    async with reloading(tmp_path) as it:
        (tmp_path / "a.yaml").write_text(allow_path("a", "/b"))
        (tmp_path / "z.yaml").write_bytes(b"\xff")
        await it.until(lambda: bool(it.refused))
        (tmp_path / "z.yaml").unlink()
        await it.until(lambda: it.allows("/b"))


async def test_a_burst_of_a_hundred_writes_costs_few_reloads_and_the_last_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(allow_path("a", "/a"))
    async with reloading(file) as it:
        for number in range(100):
            file.write_text(allow_path("a", f"/{number}"))
            await asyncio.sleep(0.002)
        await it.until(lambda: it.allows("/99"))
        assert len(it.applied) <= 5


async def test_files_that_never_stop_changing_are_loaded_anyway(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(allow_path("a", "/a"))
    async with reloading(file) as it:
        number = 0
        async with asyncio.timeout(30):
            while not it.applied:
                number += 1
                replace_by_rename(file, allow_path("a", f"/{number}"))
                await asyncio.sleep(0.005)


async def test_unwatched_files_are_read_on_request(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(allow_path("a", "/a"))
    async with reloading(file, watches=False) as it:
        file.write_text(allow_path("a", "/b"))
        await asyncio.sleep(0.2)
        assert not it.allows("/b")
        it.reloader.request_reload()
        await it.until(lambda: it.allows("/b"))


async def test_a_bug_while_compiling_is_a_refusal_and_watching_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(allow_path("a", "/a"))
    async with reloading(file) as it:
        with monkeypatch.context() as patch:
            patch.setattr(module, "compile_snapshot", lambda *_: 1 / 0)
            file.write_text(allow_path("a", "/b"))
            await it.until(lambda: bool(it.refused))
        assert "ZeroDivisionError" in it.refused[-1][0].message
        file.write_text(allow_path("a", "/cc"))
        await it.until(lambda: it.allows("/cc"))


async def test_the_old_set_is_released(tmp_path: Path) -> None:
    import gc

    file = tmp_path / "a.yaml"
    file.write_text(allow_path("marked", "/a"))
    async with reloading(file) as it:
        file.write_text(allow_path("b", "/b"))
        await it.until(lambda: it.allows("/b"))
        await asyncio.sleep(0.1)
        policies = [item for item in gc.get_objects() if type(item).__name__ == "CompiledPolicy"]
        assert not [policy for policy in policies if policy.ref.name == "default/marked"]
