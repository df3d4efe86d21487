"""Requests, grants and revocations of the administrator, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def request_lines(request: Mapping[str, Any]) -> Iterator[str]:
    """A request, one fact on each line."""
    yield f"request {request['id']}: {request['state']}"
    start = f"from {request['start']} on" if request.get("start") else "from the approval on"
    yield f"  entitlement    {request['entitlement']}"
    yield f"  requester      {subject_text(request['requester'])}"
    yield f"  for            {duration_text(request['duration_seconds'])}, {start}"
    yield f"  reason         {request['reason'] or '(none)'}"
    yield f"  requested at   {request['requested_at']}"
    approvals = request["approvals"]
    yield f"  approvals      {len(approvals)} of {request['approvals_needed']}"
    for approval in approvals:
        comment = f": {approval['comment']}" if approval["comment"] else ""
        yield f"                 {subject_text(approval['approver'])} at {approval['at']}{comment}"
    if request["state"] == "requested":
        yield f"  lapses at      {request['pending_until']}"
    if request["grant_id"]:
        yield f"  grant          {request['grant_id']}"


def grant_lines(grant: Mapping[str, Any]) -> Iterator[str]:
    """A grant, one fact on each line."""
    yield f"grant {grant['id']}: {grant['state']}{' (emergency)' if grant['break_glass'] else ''}"
    yield f"  entitlement    {grant['entitlement']}"
    yield f"  holder         {subject_text(grant['subject'])}"
    yield f"  from           {grant['start']}"
    yield f"  until          {grant['until']}"
    yield f"  reason         {grant['reason'] or '(none)'}"
    if grant["request_id"]:
        yield f"  request        {grant['request_id']}"
    if grant["review_due"]:
        yield f"  review due     {grant['review_due']}"


def revocation_lines(revocation: Mapping[str, Any]) -> Iterator[str]:
    """A revocation, one fact on each line."""
    yield f"revocation {revocation['id']}"
    issuer = f" of {revocation['issuer']}" if revocation["issuer"] else ""
    yield f"  revoked        {revocation['what']} {revocation['value']}{issuer}"
    yield f"  issued before  {revocation['before'] or 'any time'}"
    yield f"  until          {revocation['until'] or 'it is lifted'}"
    yield f"  reason         {revocation['reason'] or '(none)'}"
    if revocation["source"]:
        yield f"  by             {revocation['source']}"


def held_lines(held: Mapping[str, Any]) -> Iterator[str]:
    """A held event, one fact on each line."""
    yield f"event {held['id']}"
    yield f"  type           {held['event_type']}"
    yield f"  source         {held['source']}, jti {held['jti']}"
    yield f"  happened at    {held['happened_at']}"
    yield f"  held           {held['why']}, since {held['held_at']}"
    for subject in changed_subjects(held):
        yield f"  about          {subject}"


def changed_subjects(held: Mapping[str, Any]) -> list[str]:
    """The subjects that a held event would change."""
    revoked = [f"{item['what']} {item['value']}" for item in held["revocations"]]
    return revoked + [f"{item['what']} {item['subject']}" for item in held["signals"]]


def table_lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows with aligned columns, the first one being their titles."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def subject_text(subject: Mapping[str, str]) -> str:
    """A person or a workload."""
    return subject["spiffe_id"] or f"{subject['subject']} of {subject['issuer']}"


def duration_text(seconds: float) -> str:
    """A duration as documents have it: `1h30m`."""
    left, parts = round(seconds), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"
