from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zta_authz.cli.watching import repeat_on_change

if TYPE_CHECKING:
    from pathlib import Path


class Ended(Exception):
    """Nothing more is to be seen."""


def test_it_runs_again_for_each_change_of_content_names_or_watched_paths(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    file = tmp_path / "watched" / "a.yaml"
    file.write_text("1")
    later = tmp_path / "later.yaml"
    runs: list[int] = []
    steps = iter(
        [
            lambda: None,
            lambda: file.write_text("22"),
            lambda: None,
            lambda: (tmp_path / "watched" / "b.yaml").write_text("new"),
            file.unlink,
            lambda: later.write_text("3"),
        ]
    )
    seen: list[int] = []

    def run() -> list[str]:
        runs.append(1)
        return [str(tmp_path / "watched"), *([str(later)] if len(runs) > 2 else [])]

    def sleep(_seconds: float) -> None:
        seen.append(len(runs))
        step = next(steps, None)
        if step is None:
            raise Ended
        step()

    with pytest.raises(Ended):
        repeat_on_change(run, sleep)
    assert seen == [1, 1, 2, 2, 3, 4, 5]
