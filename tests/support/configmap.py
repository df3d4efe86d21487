"""Policy files as kubelet, editors and people write them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ConfigMapMount:
    """A directory as kubelet mounts a ConfigMap: `..data` links to a version, each name to `..data/NAME`.

    An update writes a new version beside the old one, swaps the link in one rename, adds and removes names, and deletes
    the old version (kubernetes pkg/volume/util/atomic_writer.go).
    """

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        self.path = path
        self._version = 0
        path.mkdir()
        self.update(files)

    def update(self, files: Mapping[str, str]) -> None:
        """Publish these files and no others."""
        self._version += 1
        version = self.path / f"..2026_01_01_00_00_00.{self._version}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        link = self.path / "..data"
        before = link.resolve() if link.is_symlink() else None
        new = self.path / "..data_tmp"
        new.symlink_to(version.name)
        new.rename(link)
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for entry in self.path.iterdir():
            if entry.is_symlink() and entry.name != "..data" and entry.name not in files:
                entry.unlink()
        if before is not None:
            shutil.rmtree(before)


def replace_by_rename(path: Path, text: str) -> None:
    """Write as editors do: a new file, renamed over the old one."""
    new = path.with_name(f".{path.name}.swp")
    new.write_text(text)
    new.rename(path)


def allow_path(name: str, path: str) -> str:
    """A policy that allows everybody GET on `path`."""
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}}}\n"
        f"spec: {{rules: [{{to: [{{operation: {{methods: [GET], paths: ['{path}']}}}}]}}]}}\n"
    )
