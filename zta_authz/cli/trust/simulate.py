"""`zta-authz trust simulate`: whose level would change with a new trust model, by the records of decision logs.

Logs are read line by line, and what is counted is bounded, so a log may be larger than the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zta_authz.model.trust import TrustDemand, TrustLevel
from zta_authz.trust.assessment import RESOURCE
from zta_authz.trust.counterfactual import smallest_lift
from zta_authz.trust.recorded import reassess

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from zta_authz.trust.assessment import CompiledTrustModel
    from zta_authz.trust.recorded import Reassessment, RecordedTrust

EXIT_DROPS: Final = 1
MAX_GROUPS: Final = 10_000
"""The callers and causes that are counted by name. Others are counted together."""
SHOWN: Final = 20
EXAMPLES: Final = 3
OTHERS: Final = "(others)"
_NOBODY: Final = "(no identity)"
_NO_SIGNAL: Final = "levels, floors or weights"
_BY_EARLIER_VERSION: Final = "(the record has no states of signals)"


class Change(NamedTuple):
    """An old and a new level."""

    old: TrustLevel
    new: TrustLevel

    @property
    def drops(self) -> bool:
        """Whether the new level is lower."""
        return self.new < self.old


@dataclass(slots=True)
class Tally:
    """Counts by name and change, of a bounded number of names."""

    counts: dict[tuple[str, Change], int] = field(default_factory=dict)

    def add(self, name: str, change: Change) -> None:
        """Count one request."""
        key = (name, change)
        if key not in self.counts and len(self.counts) >= MAX_GROUPS:
            key = (OTHERS, change)
        self.counts[key] = self.counts.get(key, 0) + 1

    def most_first(self) -> list[tuple[str, Change, int]]:
        """Name, change and count: drops first, then the most frequent."""
        rows = ((name, change, count) for (name, change), count in self.counts.items())
        return sorted(rows, key=lambda row: (not row[1].drops, -row[2], row[0], row[1]))


@dataclass(slots=True)
class Simulation:
    """The result. `unread` counts lines that are not records; `missing` what undecided records lack."""

    same: int = 0
    may_drop: int = 0
    undecided: int = 0
    not_assessed: int = 0
    other_models: int = 0
    unread: int = 0
    changes: dict[Change, int] = field(default_factory=dict)
    callers: Tally = field(default_factory=Tally)
    causes: Tally = field(default_factory=Tally)
    missing: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    examples: dict[Change, list[dict[str, str]]] = field(default_factory=dict)
    unread_places: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """The number of requests whose level drops."""
        return sum(count for change, count in self.changes.items() if change.drops)

    @property
    def rose(self) -> int:
        """The number of requests whose level rises."""
        return sum(self.changes.values()) - self.dropped

    def summary(self) -> dict[str, int]:
        """The counts, as in JSON."""
        return {
            "requests": self.same + self.dropped + self.rose + self.undecided,
            "same": self.same,
            "dropped": self.dropped,
            "rose": self.rose,
            "undecided": self.undecided,
            "mayDrop": self.may_drop,
            "notAssessed": self.not_assessed,
            "otherModels": self.other_models,
            "unread": self.unread,
        }


def run(arguments: argparse.Namespace) -> int:
    """Simulate. Raises `FaultsError` with all faults of the model and the logs, and if no record can be compared."""
    from zta_authz.cli.recordings import find_recordings
    from zta_authz.cli.trust.model_files import read_models
    from zta_authz.errors import Fault, FaultsError, collect_faults

    faults: list[Fault] = []
    models: Mapping[str, CompiledTrustModel] = {}
    logs: list[Path] = []
    with collect_faults(faults):
        models = read_models(arguments.model)
    with collect_faults(faults):
        logs = find_recordings(arguments.log)
    if faults:
        raise FaultsError(faults)
    result = Simulation()
    for log in logs:
        _simulate_log(log, models, arguments, result)
    if not result.summary()["requests"]:
        message = f"no record can be assessed with the new model ({_counts_text(result)})"
        hint = "name logs of a workload with a trust model; see docs/cli.md#trust"
        raise FaultsError([Fault(" ".join(arguments.log), 0, 0, message, hint)])
    if arguments.output == "json":
        _print_json(result)
    else:
        _print_text(result)
    return EXIT_DROPS if result.dropped else 0


def _simulate_log(
    log: Path, models: Mapping[str, CompiledTrustModel], arguments: argparse.Namespace, result: Simulation
) -> None:
    from zta_authz.cli.decision_logs import NotADecision, parse_record
    from zta_authz.cli.recorded_facts import recorded_trust
    from zta_authz.cli.recordings import lines_of

    only = next(iter(models.values())) if len(models) == 1 else None
    for number, line in lines_of(log):
        try:
            record = parse_record(line, ())
        except NotADecision:
            continue
        except ValueError:
            record = None
        old = None if record is None else _old_level(record.fields)
        if record is None or old is _UNREADABLE:
            result.unread += 1
            if len(result.unread_places) < EXAMPLES:
                result.unread_places.append(f"{log}:{number}")
            continue
        if arguments.since is not None and record.now < arguments.since:
            continue
        if old is None:
            result.not_assessed += 1
            continue
        old_model = record.fields["trust"].get("model")
        model = only or models.get(old_model)
        if model is None or (arguments.replaces is not None and arguments.replaces != old_model):
            result.other_models += 1
            continue
        if old_model in result.models or len(result.models) < MAX_GROUPS:
            result.models[old_model] = result.models.get(old_model, 0) + 1
        _count(record.fields, TrustLevel[old], recorded_trust(record.fields), model, result)


_UNREADABLE: Final = "unreadable"


def _old_level(fields: Mapping[str, Any]) -> str | None:
    """The recorded level; None without an assessment, `_UNREADABLE` if the field is not an assessment."""
    trust = fields.get("trust")
    if trust is None:
        return None
    level = trust.get("level") if isinstance(trust, dict) else None
    readable = isinstance(level, str) and level in TrustLevel.__members__ and isinstance(trust.get("model"), str)
    return level if readable else _UNREADABLE


def _count(
    fields: Mapping[str, Any],
    old: TrustLevel,
    recorded: RecordedTrust,
    model: CompiledTrustModel,
    result: Simulation,
) -> None:
    new = reassess(model, recorded)
    level = new.level
    if level is None:
        result.undecided += 1
        result.may_drop += new.worst.level < old
        for name in new.missing if recorded.signals else (_BY_EARLIER_VERSION,):
            result.missing[name] = result.missing.get(name, 0) + 1
        return
    if level is old:
        result.same += 1
        return
    change = Change(old, level)
    result.changes[change] = result.changes.get(change, 0) + 1
    result.callers.add(_caller(fields), change)
    for cause in _causes(fields, change, new, model):
        result.causes.add(cause, change)
    examples = result.examples.setdefault(change, [])
    if len(examples) < EXAMPLES:
        examples.append({name: fields[name] for name in ("time", "decision_id", "method", "host", "path", "principal")})


def _caller(fields: Mapping[str, Any]) -> str:
    subject, issuer = fields["token_subject"], fields["token_issuer"]
    if subject:
        return f"{subject} ({issuer})" if issuer else str(subject)
    client = fields.get("api_client")
    return fields["principal"] or (client if isinstance(client, str) else "") or _NOBODY


def _causes(fields: Mapping[str, Any], change: Change, new: Reassessment, model: CompiledTrustModel) -> tuple[str, ...]:
    """The signals without which the level would not drop, or that no longer take the points because of which it rises.

    For a drop, they are the fewest whose change restores the old level.
    """
    if change.drops:
        lift = smallest_lift(model, new.best, TrustDemand(change.old))
        return tuple(f"{loss.component}.{loss.signal}" for loss in lift or ()) or (_NO_SIGNAL,)
    now = {(loss.component, loss.signal): loss.points for loss in new.worst.lost}
    before = fields["trust"].get("lost")
    gone = [
        f"{component}.{signal}"
        for entry in (before if isinstance(before, list) else ())
        if isinstance(entry, dict)
        and isinstance(component := entry.get("component"), str)
        and isinstance(signal := entry.get("signal"), str)
        and isinstance(points := entry.get("points"), (int, float))
        and now.get((component, signal), 0) < points * 100
    ]
    return tuple(dict.fromkeys(gone)) or (_NO_SIGNAL,)


def _print_json(result: Simulation) -> None:
    from zta_authz.cli.output import print_json

    changes = [
        {**_change_fields(change), "count": count, "examples": result.examples[change]}
        for change, count in sorted(result.changes.items(), key=lambda item: (not item[0].drops, -item[1], item[0]))
    ]
    print_json(
        "TrustSimulation",
        {
            "summary": result.summary(),
            "changes": changes,
            "callers": _tally_fields("caller", result.callers),
            "causes": _tally_fields("signal", result.causes),
            "undecided": [{"needs": name, "count": count} for name, count in _missing(result)],
            "models": [{"model": name, "count": count} for name, count in sorted(result.models.items())],
            "unread": result.unread_places,
        },
    )


def _tally_fields(name: str, tally: Tally) -> list[dict[str, Any]]:
    return [{name: who, **_change_fields(change), "count": count} for who, change, count in tally.most_first()]


def _change_fields(change: Change) -> dict[str, str]:
    return {"from": change.old.name, "to": change.new.name}


def _missing(result: Simulation) -> list[tuple[str, int]]:
    return sorted(result.missing.items(), key=lambda item: (-item[1], item[0]))


def _print_text(result: Simulation) -> None:
    from zta_authz.cli.output import one_line, stdout_console

    console = stdout_console()
    for text, style in _text_lines(result):
        console.print(one_line(text), soft_wrap=True, style=style)


def _text_lines(result: Simulation) -> Iterator[tuple[str, str]]:
    """The lines and their styles."""
    for change, count in sorted(result.changes.items(), key=lambda item: (not item[0].drops, -item[1], item[0])):
        yield f"{count:>6}  {_change_text(change)}", "bold red" if change.drops else "bold green"
        for example in result.examples[change]:
            who = example["principal"] or "nobody"
            what = f"{example['method']} {example['host']}{example['path']} by {who}, {example['time']}"
            yield f"        {what} (decision {example['decision_id']})", "dim"
    yield from _tally_lines("by caller:", result.callers)
    yield from _tally_lines("by signal:", result.causes)
    if result.missing:
        yield "undecided requests, by the signal whose state the record does not have:", ""
    for name, count in _missing(result)[:SHOWN]:
        yield f"{count:>6}  {'class of the resource' if name == RESOURCE else name}", ""
    if len(result.models) > 1:
        names = ", ".join(sorted(result.models)[:SHOWN])
        yield f"several models assessed these requests: {names}; --replaces compares those of one", "yellow"
    for place in result.unread_places:
        yield f"not a record: {place}", "yellow"
    yield _counts_text(result), ""


def _tally_lines(title: str, tally: Tally) -> Iterator[tuple[str, str]]:
    rows = tally.most_first()
    if rows:
        yield title, ""
    for name, change, count in rows[:SHOWN]:
        yield f"{count:>6}  {_change_text(change)}  {name}", ""
    if len(rows) > SHOWN:
        yield f"        and {len(rows) - SHOWN} more (all of them with -o json)", ""


def _change_text(change: Change) -> str:
    return f"{change.old.name} -> {change.new.name}"


def _counts_text(result: Simulation) -> str:
    words = {"mayDrop": "of these may drop", "notAssessed": "without an assessment", "otherModels": "by other models"}
    return ", ".join(f"{words.get(name, name)}: {count}" for name, count in result.summary().items())
