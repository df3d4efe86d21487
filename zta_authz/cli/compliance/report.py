"""Print the report as JSON, or as a table of requirements, a table of evidence and a list of limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from zta_authz.cli.compliance.catalogue import REQUIREMENTS
from zta_authz.cli.compliance.evidence import Evidence, Requirement, Status, status_of
from zta_authz.cli.decision_output import time_text
from zta_authz.cli.output import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import FieldLocation

NOTICE: Final = (
    "Evidence that was found in these files, not a certification: files do not show what runs, and no control is met "
    "by configuration alone."
)
_MIN_TABLE_COLUMNS: Final = 80
_STYLES: Final = {
    Status.SATISFIED: "green",
    Status.MISSING: "bold red",
    Status.UNSEEN: "yellow",
    Status.NOT_APPLICABLE: "dim",
}


def exit_status(evidence: Sequence[Evidence], *, strict: bool) -> int:
    """Return 1 if something is missing and not waived, otherwise 0. With `strict`, unseen evidence is missing, too."""
    gaps = {Status.MISSING, Status.UNSEEN} if strict else {Status.MISSING}
    return int(any(result.status in gaps and not result.waiver for result in evidence))


def evidence_for(requirement: Requirement, evidence: Sequence[Evidence]) -> list[Evidence]:
    """Return the results of the checks of one requirement."""
    return [result for result in evidence if requirement.id in result.check.requirements]


def report_fields(installation: Installation, evidence: Sequence[Evidence]) -> dict[str, Any]:
    """Return the report as JSON fields; `source`, `line` and `field` may be null."""
    return {
        "at": time_text(installation.now),
        "notice": NOTICE,
        "summary": _counts(evidence),
        "requirements": [
            {
                "id": requirement.id,
                "source": requirement.source,
                "title": requirement.title,
                "status": status_of(evidence_for(requirement, evidence)).value,
                "checks": [result.check.id for result in evidence_for(requirement, evidence)],
                "notShownByManifests": list(requirement.beyond),
            }
            for requirement in REQUIREMENTS
        ],
        "checks": [_check_fields(result) for result in evidence],
    }


def _counts(evidence: Sequence[Evidence]) -> dict[str, int]:
    names = {
        Status.SATISFIED: "satisfied",
        Status.MISSING: "missing",
        Status.UNSEEN: "cannotBeSeen",
        Status.NOT_APPLICABLE: "notApplicable",
    }
    counts = {name: sum(result.status is status for result in evidence) for status, name in names.items()}
    return {**counts, "waived": sum(_is_waived(result) for result in evidence)}


def _is_waived(evidence: Evidence) -> bool:
    return bool(evidence.waiver) and evidence.status in (Status.MISSING, Status.UNSEEN)


def _check_fields(evidence: Evidence) -> dict[str, Any]:
    check = evidence.check
    return {
        "id": check.id,
        "title": check.title,
        "requirements": list(check.requirements),
        "status": evidence.status.value,
        "waiver": evidence.waiver or None,
        "reason": check.absent if evidence.status is Status.NOT_APPLICABLE else "",
        "satisfied": [
            {**_location_fields(satisfied.location), "value": satisfied.value} for satisfied in evidence.satisfied
        ],
        "missing": [
            {**_location_fields(gap.location), "message": gap.message, "mend": gap.remedy} for gap in evidence.missing
        ],
        "cannotBeSeen": [
            {**_location_fields(unseen.location), "message": unseen.message} for unseen in evidence.unseen
        ],
    }


def _location_fields(location: FieldLocation | None) -> dict[str, Any]:
    if location is None:
        return {"source": None, "line": None, "field": None}
    return {"source": location.source or None, "line": location.line or None, "field": location.field or None}


def print_report(console: Console, evidence: Sequence[Evidence], *, quiet: bool) -> None:
    """Print the report as text; `quiet` omits satisfied checks."""
    if console.width < _MIN_TABLE_COLUMNS:
        _print_lines(console, evidence, quiet=quiet)
    else:
        console.print(_summary_table(evidence))
        console.print(_evidence_table(evidence, quiet=quiet))
    console.print(Text("Not shown by manifests", style="bold"))
    for requirement in REQUIREMENTS:
        for beyond in requirement.beyond:
            console.print(Text(f"  {requirement.id}: {beyond}"))
    counts = _counts(evidence)
    console.print(
        f"\n{len(evidence)} checks: {counts['satisfied']} satisfied, {counts['missing']} missing, "
        f"{counts['cannotBeSeen']} cannot be seen here, {counts['notApplicable']} not applicable."
        + (f" {counts['waived']} waived." if counts["waived"] else "")
    )
    console.print(NOTICE)


def _print_lines(console: Console, evidence: Sequence[Evidence], *, quiet: bool) -> None:
    """Print the content of the tables as lines, for narrow terminals."""
    for requirement in REQUIREMENTS:
        results = evidence_for(requirement, evidence)
        status = status_of(results)
        line = Text(f"{requirement.id} ", style="bold").append(status.value, style=_STYLES[status])
        console.print(line.append(f" {requirement.title}: {_status_counts(results)}", style="not bold default"))
    for result in _shown(evidence, quiet=quiet):
        console.print(Text(f"\n{result.check.id} ({', '.join(result.check.requirements)})", style="bold"))
        for line in _lines(result, quiet=quiet):
            console.print(line)
    console.print()


def _shown(evidence: Sequence[Evidence], *, quiet: bool) -> Iterator[Evidence]:
    good = (Status.SATISFIED, Status.NOT_APPLICABLE)
    return (result for result in evidence if not (quiet and result.status in good))


def _status_counts(results: Sequence[Evidence]) -> str:
    counts = {kind: sum(result.status is kind for result in results) for kind in Status}
    return ", ".join(f"{count} {kind.value}" for kind, count in counts.items() if count)


def _summary_table(evidence: Sequence[Evidence]) -> Table:
    table = Table(title="Tenets and controls", title_justify="left", expand=False)
    for name in ("", "of", "requirement", "status", "checks"):
        table.add_column(name, overflow="fold")
    for requirement in REQUIREMENTS:
        results = evidence_for(requirement, evidence)
        status = status_of(results)
        table.add_row(
            requirement.id,
            requirement.source,
            requirement.title,
            Text(status.value, style=_STYLES[status]),
            _status_counts(results),
        )
    return table


def _evidence_table(evidence: Sequence[Evidence], *, quiet: bool) -> Table:
    table = Table(title="Evidence", title_justify="left", show_lines=True, expand=True)
    for name, width in (("check", 24), ("for", 5), ("status", 14)):
        table.add_column(name, overflow="fold", max_width=width)
    table.add_column("found, or missing and how to fix it", overflow="fold", ratio=1)
    for result in _shown(evidence, quiet=quiet):
        check = result.check
        title = Text(check.id, style="bold").append(f"\n{check.title}", style="not bold")
        status = Text(result.status.value, style=_STYLES[result.status])
        table.add_row(title, "\n".join(check.requirements), status, Text("\n").join(_lines(result, quiet=quiet)))
    return table


def _lines(evidence: Evidence, *, quiet: bool) -> Iterator[Text]:
    if evidence.waiver:
        how = "waived" if _is_waived(evidence) else "waiver is not needed"
        yield Text(f"{how}: ", style="magenta").append(one_line(evidence.waiver), style="not magenta")
    for gap in evidence.missing:
        yield _line("missing", Status.MISSING, gap.location, gap.message).append(
            one_line(f"; {gap.remedy}"), style="not bold green"
        )
    for unseen in evidence.unseen:
        yield _line("not seen", Status.UNSEEN, unseen.location, unseen.message)
    for satisfied in () if quiet else evidence.satisfied:
        yield _line("found", Status.SATISFIED, satisfied.location, satisfied.value)
    if evidence.status is Status.NOT_APPLICABLE:
        yield Text(evidence.check.absent, style="dim")


def _line(word: str, status: Status, location: FieldLocation | None, text: str) -> Text:
    line = Text(f"{word} ", style=_STYLES[status])
    if location is not None:
        at = f"{location.source}:{location.line}" if location.line else location.source
        line.append(one_line(f"{at} " if at else ""), style="not bold cyan")
        line.append(one_line(f"{location.field}: "), style="not bold default")
    return line.append(one_line(text), style="not bold default")
