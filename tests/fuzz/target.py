"""What a fuzz target is: an invariant, a function that any bytes may be given to, and inputs to begin with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from zta_authz.errors import Fault

    Change = Callable[[bytes], bytes]

MAX_SECONDS = 5.0
"""CPU time that one input may take, on a slow machine and with coverage measured; `MAX_BYTES` long at most."""
MAX_BYTES = 16 * 1024


@dataclass(frozen=True)
class Target:
    """`check` raises nothing while `invariant` holds, whatever bytes it is given.

    `seeds` are inputs by name to begin with; `words` are what inputs are made of, for mutations to put in. `within`,
    where inputs have a form, changes one part of an input with the function it is given and keeps the form.
    """

    name: str
    invariant: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Mapping[str, bytes]]
    words: tuple[bytes, ...] = ()
    within: Callable[[bytes, Random, Change], bytes] | None = None

    def hold(self, data: bytes) -> None:
        """Check one input, and that it takes no longer than it may."""
        started = time.process_time()
        self.check(data)
        spent = time.process_time() - started
        assert spent < MAX_SECONDS, f"{len(data)} bytes took {spent:.1f} s of CPU time"


def text_of(data: bytes) -> str:
    """The bytes as the service reads header values: what is not UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def as_written(text: str) -> list[Any]:
    """Each document of YAML `text` with every leaf as text, by PyYAML's own composer and constructor."""
    return list(yaml.load_all(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)))


def split_mode(data: bytes, modes: int) -> tuple[int, bytes]:
    """The first byte as a number below `modes`, and the rest."""
    return (data[0] % modes, data[1:]) if data else (0, b"")


def assert_telling(faults: tuple[Fault, ...]) -> None:
    """Every fault says where it is and what is wrong, in one line that can be printed."""
    assert faults, "something was refused, and nothing is said to be wrong"
    for fault in faults:
        assert fault.source, fault
        assert fault.message, fault
        assert fault.line >= 0, fault
        assert fault.column >= 0, fault
