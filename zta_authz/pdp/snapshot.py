"""The rules and keys in force, compiled together from one set of documents and swapped as one reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.errors import Fault
    from zta_authz.model.options import Options
    from zta_authz.policy.table import RuleTable


@dataclass(frozen=True, slots=True)
class SourceText:
    """One policy file as read: `name` is what faults call it, `text` its content."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable. `digest` is SHA-256 (hex) over the sources' names and texts and the options; `sources` are their names.

    `warnings` are faults that do not keep the documents from being taken.
    """

    table: RuleTable
    verifier: IdentityVerifier
    options: Options
    digest: str
    sources: tuple[str, ...]
    warnings: tuple[Fault, ...] = ()


def compile_snapshot(sources: Iterable[SourceText], options: Options) -> Snapshot:
    """Compile all documents into one snapshot, or raise `DocumentErrors` with every fault of every file."""
    raise NotImplementedError
