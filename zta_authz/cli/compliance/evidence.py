"""The results of checks, and the requirements that they are evidence for. A report is not a certification."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import FieldLocation


class Status(StrEnum):
    """The status of a check or a requirement. The list is closed; values are stable."""

    SATISFIED = "satisfied"
    MISSING = "missing"
    UNSEEN = "cannot be seen here"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Satisfied:
    """Evidence that satisfies a check."""

    location: FieldLocation
    value: str


@dataclass(frozen=True, slots=True)
class Gap:
    """What is missing, how to fix it, and the location if there is one."""

    message: str
    remedy: str
    location: FieldLocation | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """Evidence that these files do not contain, and where to look for it."""

    message: str
    location: FieldLocation | None = None


Finding = Satisfied | Gap | Unseen


@dataclass(frozen=True, slots=True)
class Check:
    """One check of an installation. `reads` names the fields that it reads, `absent` is why it may not apply.

    `run` is pure. If it yields nothing, the check does not apply.
    """

    id: str
    title: str
    requirements: tuple[str, ...]
    reads: str
    run: Callable[[Installation], Iterator[Finding]]
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The findings of one check."""

    check: Check
    satisfied: tuple[Satisfied, ...] = ()
    missing: tuple[Gap, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    waiver: str = ""
    """The operator's reason to accept what is missing, "" without one. It affects only the exit status."""

    @property
    def status(self) -> Status:
        """The least favourable status of the findings."""
        if self.missing:
            return Status.MISSING
        if self.unseen:
            return Status.UNSEEN
        return Status.SATISFIED if self.satisfied else Status.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Requirement:
    """A tenet or a control. `beyond` lists its aspects that manifests never show."""

    id: str
    source: str
    title: str
    beyond: tuple[str, ...] = field(default=())


def gather(check: Check, installation: Installation) -> Evidence:
    """Run one check and remove duplicate findings."""
    known = all(authorizer.settings_known for authorizer in installation.processes)
    findings = list(
        dict.fromkeys(finding if known else _without_defaults(finding) for finding in check.run(installation))
    )
    return Evidence(
        check,
        tuple(finding for finding in findings if isinstance(finding, Satisfied)),
        tuple(finding for finding in findings if isinstance(finding, Gap)),
        tuple(finding for finding in findings if isinstance(finding, Unseen)),
    )


def _without_defaults(finding: Finding) -> Finding:
    """Replace a finding about a default, because a file that was not given may set it."""
    if isinstance(finding, Unseen) or finding.location is None or finding.location.source:
        return finding
    return Unseen("the settings are not among the files", finding.location)


def status_of(evidence: list[Evidence]) -> Status:
    """Return the status of a requirement: missing if a check is missing, else satisfied if one is satisfied."""
    statuses = {result.status for result in evidence}
    for status in (Status.MISSING, Status.SATISFIED, Status.UNSEEN):
        if status in statuses:
            return status
    return Status.NOT_APPLICABLE
