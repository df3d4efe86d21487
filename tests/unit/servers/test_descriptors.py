from __future__ import annotations

import resource

import pytest

from zta_authz.servers.descriptors import raise_descriptor_limit


class Limit:
    """The process's limit of open files, without touching it."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def read(self, _which: int) -> tuple[int, int]:
        return self.now

    def write(self, _which: int, limits: tuple[int, int]) -> None:
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4096, 1256),
        (1024, resource.RLIM_INFINITY, 1256),
        (2000, 4096, 2000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_the_soft_limit_is_raised_to_what_connections_need_and_never_lowered(
    soft: int, hard: int, expected: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limit.read)
    monkeypatch.setattr(resource, "setrlimit", limit.write)
    raise_descriptor_limit(500)
    assert limit.now == (expected, hard)
    assert caplog.text == ""


def test_a_lower_hard_limit_logs_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limit = Limit(256, 512)
    monkeypatch.setattr(resource, "getrlimit", limit.read)
    monkeypatch.setattr(resource, "setrlimit", limit.write)
    raise_descriptor_limit(500)
    assert limit.now == (512, 512)
    assert "may open 512 files" in caplog.text
    assert "1256" in caplog.text
