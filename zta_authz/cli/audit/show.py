"""`zta-authz audit show`: the events of a request, grant or revocation, and the decisions that rest on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.administrator.access_events import read_log_line
from zta_authz.audit.segments import is_lock_file
from zta_authz.cli.audit.log_files import all_segments, read_lines
from zta_authz.cli.audit.references import read_decision_line
from zta_authz.cli.output import one_line, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from zta_authz.administrator.access_events import Actor, LoggedEvent
    from zta_authz.cli.audit.references import DecisionLine

MAX_USES: Final = 10_000
"""Uses that are listed. Further ones are only counted."""
_NOT_SHOWN: Final = frozenset({"type", "id", "issuer", "subject", "spiffe_id", "request"})
_TIMES: Final = frozenset({"start", "until", "before"})


@dataclass(frozen=True, slots=True)
class _Use:
    """A decision, and its place."""

    file: str
    line: int
    decision: DecisionLine


@dataclass(slots=True)
class _Story:
    """What the logs have about one request and its grant, or about one revocation. "" is nothing."""

    request: str = ""
    grant: str = ""
    revocation: str = ""
    events: list[LoggedEvent] = field(default_factory=list)
    uses: list[_Use] = field(default_factory=list)
    use_count: int = 0


def run(arguments: argparse.Namespace) -> int:
    """Show. Raises `FaultsError` if a file can't be read."""
    files = all_segments(arguments.access_log)
    story = _Story(arguments.request or "", arguments.grant or "", arguments.revocation or "")
    _read_events(story, files)
    _read_uses(story, arguments.files)
    if arguments.output == "json":
        print_json("AccessHistory", _fields(story))
    else:
        _print(story)
    return 0 if story.events or story.uses else 1


def _read_events(story: _Story, files: list[str]) -> None:
    """Read the events, each once though every replica has it. A request and its grant lead to each other."""
    name = story.request or story.grant or story.revocation
    related = {event.event_id: event for event in _events(files, name) if _concerns(event, story)}
    for event in related.values():
        if event.type == "grant":
            story.grant, story.request = event.id, event.text("request")
    if story.request and story.request != name:
        related |= {event.event_id: event for event in _events(files, story.request) if _concerns(event, story)}
    story.events = sorted(related.values(), key=lambda event: event.time)


def _events(files: list[str], name: str) -> Iterator[LoggedEvent]:
    """The events whose lines have `name`, an ID without characters that JSON escapes."""
    needle = name.encode()
    for file in files:
        for line in read_lines(file):
            event = read_log_line(line) if needle in line else None
            if event is not None:
                yield event


def _concerns(event: LoggedEvent, story: _Story) -> bool:
    if story.revocation:
        items = event.detail.get("items")
        of_signal = isinstance(items, list) and f"view/revocation/{story.revocation}" in items
        return of_signal or (event.type == "revocation" and event.id == story.revocation)
    if event.type == "grant":
        return event.id == story.grant or bool(story.request and event.text("request") == story.request)
    return event.type == "request" and event.id == story.request


def _read_uses(story: _Story, files: Iterable[str]) -> None:
    name = story.grant or story.revocation
    if not name:
        return
    needle = name.encode()
    for file in dict.fromkeys(files):
        if is_lock_file(Path(file)):
            continue
        for number, line in enumerate(read_lines(file), 1):
            decision = read_decision_line(line) if needle in line else None
            if decision is not None and _rests_on(decision, story):
                story.use_count += 1
                if len(story.uses) < MAX_USES:
                    story.uses.append(_Use(file, number, decision))


def _rests_on(decision: DecisionLine, story: _Story) -> bool:
    if story.revocation:
        return decision.revocation == story.revocation
    return decision.grant is not None and decision.grant.id == story.grant


def _fields(story: _Story) -> dict[str, Any]:
    return {
        "request": story.request or None,
        "grant": story.grant or None,
        "revocation": story.revocation or None,
        "events": [msgspec.to_builtins(event) for event in story.events],
        "useCount": story.use_count,
        "uses": [{"file": use.file, "line": use.line, **msgspec.to_builtins(use.decision)} for use in story.uses],
    }


def _print(story: _Story) -> None:
    lines = [(event.time, event.kind, _event_text(event)) for event in story.events]
    lines += [(use.decision.time, use.decision.verdict, _use_text(use)) for use in story.uses]
    width = max((len(what) for _, what, _ in lines), default=0)
    for time, what, text in sorted(lines, key=lambda line: line[0]):
        print(one_line(f"{time}  {what:<{width}}  {text}"))
    if story.use_count > len(story.uses):
        print(f"and {story.use_count - len(story.uses)} more decisions")
    if not lines:
        print("nothing in these logs")


def _event_text(event: LoggedEvent) -> str:
    shown = {name: value for name, value in event.object.items() if name not in _NOT_SHOWN} | event.detail
    parts = [f"{name} {_value_text(name, value)}" for name, value in shown.items() if value not in ("", None, [])]
    reason = f': "{event.reason}"' if event.reason else ""
    decision = f" (decision {event.actor.decision_id})" if event.actor.decision_id else ""
    who = f"by {_actor_text(event.actor)}{decision}{reason}"
    return f"{event.type} {event.id} {who}; {', '.join(parts)}".removesuffix("; ")


def _actor_text(actor: Actor) -> str:
    named = f"{actor.issuer}/{actor.subject}" if actor.issuer or actor.subject else actor.principal
    return named or "nobody"


def _value_text(name: str, value: object) -> str:
    if name in _TIMES and isinstance(value, int | float) and 0 < value < 253_402_300_800:  # the year 10000
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _use_text(use: _Use) -> str:
    decision = use.decision
    caller = f"{decision.token_issuer}/{decision.token_subject}" if decision.token_subject else decision.principal
    request = f"{decision.method} {decision.host}{decision.path} by {caller or 'nobody'}"
    return f"{request} (decision {decision.decision_id}, {use.file}:{use.line}, {decision.reason})"
