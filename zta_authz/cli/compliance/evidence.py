"""What checks find, and what they are evidence for. A report of these says what was found; it certifies nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import FieldLocation


class Status(StrEnum):
    """What is known of a check or a requirement. Closed list; values are stable."""

    SATISFIED = "satisfied"
    MISSING = "missing"
    UNSEEN = "cannot be seen here"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Satisfied:
    """What satisfies a check."""

    location: FieldLocation
    value: str


@dataclass(frozen=True, slots=True)
class Gap:
    """What is missing, how to mend it, and where that belongs where there is such a place."""

    message: str
    remedy: str
    location: FieldLocation | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """What files can't show, or these files do not, and where to look instead."""

    message: str
    location: FieldLocation | None = None


Finding = Satisfied | Gap | Unseen


@dataclass(frozen=True, slots=True)
class Check:
    """One question to an installation. `reads` are the fields it looks at, `absent` why nothing may be found.

    `run` is pure. What it yields is all there is to say; nothing at all means that it does not apply.
    """

    id: str
    title: str
    requirements: tuple[str, ...]
    reads: str
    run: Callable[[Installation], Iterator[Finding]]
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a check found."""

    check: Check
    satisfied: tuple[Satisfied, ...] = ()
    missing: tuple[Gap, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    waiver: str = ""
    """Why the operator accepts what is missing, "" where nobody does. It changes the exit status, not the finding."""

    @property
    def status(self) -> Status:
        """The least favourable of what was found."""
        if self.missing:
            return Status.MISSING
        if self.unseen:
            return Status.UNSEEN
        return Status.SATISFIED if self.satisfied else Status.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Requirement:
    """A tenet or a control. `beyond` is what no manifest shows of it."""

    id: str
    source: str
    title: str
    beyond: tuple[str, ...] = field(default=())


def gather(check: Check, installation: Installation) -> Evidence:
    """Run one check; what it says twice is kept once."""
    known = all(authorizer.settings_known for authorizer in installation.authorizers)
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
    """Nothing is said of a setting's default where a file that was not given may set it."""
    if isinstance(finding, Unseen) or finding.location is None or finding.location.source:
        return finding
    return Unseen("the settings are not among the files", finding.location)


def status_of(evidence: list[Evidence]) -> Status:
    """Of a requirement, by its checks: one that is missing makes it missing, one that is satisfied is evidence."""
    statuses = {result.status for result in evidence}
    for status in (Status.MISSING, Status.SATISFIED, Status.UNSEEN):
        if status in statuses:
            return status
    return Status.NOT_APPLICABLE
