"""`zta-authz replay`: decide recorded requests by other policies, and report the decisions that change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zta_authz.cli.output import add_output_argument

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from zta_authz.cli.decision_logs import RecordedDecision
    from zta_authz.cli.recorded_facts import ReplayFacts
    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.settings import Settings

    _Side = tuple[Snapshot, FactViews]

EXIT_CHANGES: Final = 1
EXAMPLES: Final = 3


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog
    from zta_authz.cli.command_inputs import add_settings_arguments
    from zta_authz.cli.time_argument import time_argument

    command = subparsers.add_parser(
        "replay",
        help="decide recorded requests by other policies",
        description="Decide recorded requests by the policies of --policies, and print the verdicts that change.",
        epilog=epilog(
            "0 no verdict changes, 1 some verdicts change, 2 the recordings or policies can't be read",
            "shadow.md#replay",
            "zta-authz replay decisions.jsonl --policies new-policies/",
            "zta-authz replay requests/ --policies new-policies/ --against policies/ -o json",
        ),
    )
    command.add_argument(
        "recordings",
        metavar="LOG",
        nargs="+",
        help="decision logs, files of recorded CheckRequests, or directories of them",
    )
    command.add_argument(
        "--policies", metavar="PATH", nargs="+", required=True, help="the new policies: files or directories"
    )
    command.add_argument(
        "--against",
        metavar="PATH",
        nargs="+",
        default=[],
        help="the old policies, for CheckRequests (default: `policies` of the settings); logs contain the old verdicts",
    )
    command.add_argument(
        "--at",
        metavar="TIME",
        type=time_argument,
        help="decide as of this time, RFC 3339 (default: the time of each request)",
    )
    add_output_argument(command)
    add_settings_arguments(command)
    command.set_defaults(run=run)


class Change(NamedTuple):
    """A kind of change: old and new verdict, policy and rule. Policies are "" and rules None if no rule decided."""

    old: str
    old_policy: str
    old_rule: int | None
    new: str
    new_policy: str
    new_rule: int | None
    old_rule_name: str = ""
    new_rule_name: str = ""


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay. `unread` lists the lines that are not records, as file:line."""

    same: int = 0
    refused: int = 0
    undecidable: int = 0
    changes: dict[Change, int] = field(default_factory=dict)
    examples: dict[Change, list[dict[str, Any]]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """The number of requests whose verdict changes."""
        return sum(self.changes.values())

    @property
    def requests(self) -> int:
        """The number of requests that were examined."""
        return self.same + self.refused + self.undecidable + self.changed

    def compare(self, old: tuple[str, str, int | None, str], new: Decision, example: dict[str, Any]) -> None:
        """Count one request. `old` is its old verdict, policy, rule number and rule name."""
        verdict = new.verdict.value
        if old[0] == verdict:
            self.same += 1
            return
        change = Change(*old[:3], verdict, new.policy, new.rule, old[3], new.rule_name)
        self.changes[change] = self.changes.get(change, 0) + 1
        examples = self.examples.setdefault(change, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def count_undecidable(self, missing: Collection[str]) -> None:
        """Count one request that can't be decided because the `missing` data was not recorded."""
        self.undecidable += 1
        for need in missing:
            self.missing[need] = self.missing.get(need, 0) + 1


def run(arguments: argparse.Namespace) -> int:
    """Replay. Raises `FaultsError` with all faults of the settings, the policies and the recordings."""
    from pathlib import Path

    from zta_authz.cli.command_inputs import options_for, read_settings
    from zta_authz.cli.fact_sources import load_views
    from zta_authz.cli.recorded_facts import reads_fact
    from zta_authz.cli.recordings import find_recordings, is_log
    from zta_authz.errors import Fault, FaultsError
    from zta_authz.model.facts import NO_FACTS
    from zta_authz.policy_sources.files import load_snapshot

    settings = read_settings(arguments)
    files = find_recordings(arguments.recordings)
    options = options_for(settings, arguments.policies)
    snapshot = load_snapshot(arguments.policies, options)
    logs = [file for file in files if is_log(file)]
    requests = [file for file in files if file not in logs]
    result = ReplayResult()
    for log in logs:
        _replay_log(log, snapshot, settings, arguments.at, result)
    if requests:
        if not arguments.against and not any(Path(path).exists() for path in settings.policies):
            message = "CheckRequests need the old policies for comparison, and no old policies were given"
            raise FaultsError([Fault(str(requests[0]), 0, 0, message, "use --against DIR or --config FILE")])
        against = load_snapshot(arguments.against or settings.policies, options)
        sides = [(side, load_views(settings, side)) for side in (against, snapshot)]
        if any(views is not NO_FACTS for _, views in sides):
            result.notes.append("facts are those of the files now, not those of the time of the requests")
        elif any(reads_fact(clause) for side, _ in sides for clause in _clauses(side)):
            result.notes.append("rules read facts, and the settings name no source of facts: they count as absent")
        for file in requests:
            _replay_requests(file, sides[0], sides[1], arguments.at, result)
    if not result.requests:
        raise FaultsError(
            [Fault(" ".join(arguments.recordings), 0, 0, "there are no decisions", "check that this is the right file")]
        )
    if arguments.output == "json":
        _print_json(result)
    else:
        _print_text(result)
    return EXIT_CHANGES if result.changes else 0


def _replay_log(log: Path, snapshot: Snapshot, settings: Settings, at: float | None, result: ReplayResult) -> None:
    from zta_authz.cli.decision_logs import NotADecision, parse_record
    from zta_authz.cli.recordings import lines_of
    from zta_authz.pdp.partial import outlook

    models = snapshot.models.select(snapshot.options.workload)
    masked = {str(mask.field) for mask in settings.audit.mask}
    options = snapshot.options
    for number, line in lines_of(log):
        try:
            recorded = parse_record(line, masked)
        except NotADecision:
            continue
        except ValueError:
            result.unread.append(f"{log}:{number}")
            continue
        if not recorded.by_policy:
            result.refused += 1
            continue
        if options.shared:
            result.count_undecidable(("the workload of the request (`workloads`, `gateways`)",))
            continue
        facts = recorded.facts(models)
        inputs = recorded.inputs(options, at, facts.opener)
        revoked = _revoked(recorded, inputs, snapshot)
        if revoked is not None:
            result.compare(_old(recorded), revoked, _example(recorded))
            continue
        view = snapshot.table.default_view
        partial = outlook(view, inputs, recorded.known(inputs, facts), default_allow=options.default_allow)
        decision, missing = _with_demand(partial.decision, inputs, facts), partial.missing
        if decision is None:
            result.count_undecidable(missing or ("what the class of the resource demands",))
            continue
        result.compare(_old(recorded), decision, _example(recorded))


def _with_demand(decision: Decision | None, inputs: Inputs, facts: ReplayFacts) -> Decision | None:
    """The decision if the class of the resource demands something of an allow; None if the record does not say."""
    from zta_authz.pdp.demand import meet_demand

    if decision is None or not decision.allowed or not inputs.open_facts.classifies:
        return decision
    if not facts.knows_class:
        return None
    resource = inputs.facts.resource_class
    if resource is None or not facts.knows_trust(resource.demand):
        return None if resource is not None else decision
    return meet_demand(decision, inputs)


def _old(recorded: RecordedDecision) -> tuple[str, str, int | None, str]:
    fields = recorded.fields
    return fields["verdict"], fields["policy"], fields.get("rule"), fields.get("rule_name", "")


def _example(recorded: RecordedDecision) -> dict[str, Any]:
    return {name: recorded.fields[name] for name in ("time", "decision_id", "method", "host", "path", "principal")}


def _revoked(recorded: RecordedDecision, inputs: Inputs, snapshot: Snapshot) -> Decision | None:
    """Return the denial if the recorded caller is revoked regardless of when its credential was issued."""
    from zta_authz.cli.policy_evaluator import authority_of
    from zta_authz.errors import Refused
    from zta_authz.model.decision import Decision, Verdict

    identity, verifier, now = inputs.identity, snapshot.verifier, inputs.now
    try:
        if identity.peer is not None and "principal" not in recorded.unknown:
            verifier.revocations.check_peer(identity.peer.names, (), now, now)
        if identity.token is not None and recorded.unknown.isdisjoint(("token_issuer", "token_subject")):
            issuer, subject = identity.token.issuer, identity.token.subject
            verifier.revocations.check_claims(authority_of(issuer, subject, verifier), subject, "", now, now)
    except Refused as refused:
        return Decision(Verdict.DENY, refused.reason, detail=refused.detail)
    return None


def _clauses(snapshot: Snapshot) -> Iterator[Clause]:
    for policy in snapshot.table.policies:
        for rule in policy.rules:
            yield from rule.clauses
            yield from (clause for group in rule.groups for alternative in group for clause in alternative)


def _replay_requests(file: Path, old_side: _Side, new_side: _Side, at: float | None, result: ReplayResult) -> None:
    import time

    from zta_authz.cli.decision_output import time_text
    from zta_authz.cli.recordings import check_requests_of
    from zta_authz.ext_authz.request import parse_check_request, request_time
    from zta_authz.pdp.decide import evaluate

    against, snapshot = old_side[0], new_side[0]
    for number, payload in enumerate(check_requests_of(file), 1):
        request, evidence = parse_check_request(payload)
        now = request_time(payload) or time.time() if at is None else at
        old = evaluate(against, request, evidence, now, views=old_side[1])
        new = evaluate(snapshot, request, evidence, now, views=new_side[1])
        if _wants_fetched_keys(old, against) or _wants_fetched_keys(new, snapshot):
            result.count_undecidable(("keys of an issuer, which are not fetched here",))
            continue
        example = {
            "time": time_text(now),
            "recording": f"{file}#{number}",
            "method": request.method,
            "host": request.host,
            "path": request.path.partition("?")[0],
            "principal": new.identity.principal or old.identity.principal,
        }
        result.compare((old.verdict.value, old.policy, old.rule, old.rule_name), new, example)


def _wants_fetched_keys(decision: Decision, snapshot: Snapshot) -> bool:
    """Return whether the decision depends on keys that the service fetches and this command does not."""
    from zta_authz.errors import Reason

    fetched = any(slot.fetched for slot in snapshot.verifier.key_slots)
    return decision.reason is Reason.TOKEN_KEY_UNKNOWN and fetched


def _counts(result: ReplayResult) -> dict[str, int]:
    return {
        "requests": result.requests,
        "same": result.same,
        "changed": result.changed,
        "undecidable": result.undecidable,
        "refused": result.refused,
        "unread": len(result.unread),
    }


def _by_count(result: ReplayResult) -> list[tuple[Change, int]]:
    def order(item: tuple[Change, int]) -> tuple[Any, ...]:
        change, count = item
        return (-count, change.old, change.old_policy, change.old_rule or 0, change.new_policy, change.new_rule or 0)

    return sorted(result.changes.items(), key=order)


def _print_json(result: ReplayResult) -> None:
    from zta_authz.cli.output import print_json

    changes = [
        {
            "from": _side(change.old, change.old_policy, change.old_rule, change.old_rule_name),
            "to": _side(change.new, change.new_policy, change.new_rule, change.new_rule_name),
            "count": count,
            "examples": result.examples[change],
        }
        for change, count in _by_count(result)
    ]
    missing = [{"needs": needs, "count": count} for needs, count in _most_first(result.missing)]
    fields = {"summary": _counts(result), "changes": changes, "undecidable": missing, "unread": result.unread}
    fields["notes"] = result.notes
    print_json("ReplayResult", fields)


def _print_text(result: ReplayResult) -> None:
    from rich.text import Text

    from zta_authz.cli.output import one_line, stdout_console

    console = stdout_console()
    for change, count in _by_count(result):
        line = Text(f"{count:>6}  {change.old} -> ", style="bold")
        line.append(change.new, style="bold green" if change.new == "allow" else "bold red")
        old = _by(change.old_policy, change.old_rule, change.old_rule_name)
        new = _by(change.new_policy, change.new_rule, change.new_rule_name)
        line.append(one_line(f"  {new}; was {old}"), style="not bold default")
        console.print(line, soft_wrap=True)
        for example in result.examples[change]:
            who = example["principal"] or "nobody"
            where = example.get("recording") or f"decision {example['decision_id']}"
            summary = f"{example['method']} {example['host']}{example['path']} by {who}, {example['time']} ({where})"
            console.print(Text(one_line(f"        {summary}"), style="dim"), soft_wrap=True)
    if result.missing:
        console.print("undecidable requests, by the data that is not recorded:", soft_wrap=True)
        for needs, count in _most_first(result.missing):
            console.print(Text(one_line(f"{count:>6}  {needs}")), soft_wrap=True)
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for place in result.unread[:EXAMPLES]:
        console.print(Text(one_line(f"not a record: {place}"), style="yellow"), soft_wrap=True)
    console.print(", ".join(f"{name}: {count}" for name, count in _counts(result).items()), soft_wrap=True)


def _most_first(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _side(verdict: str, policy: str, rule: int | None, name: str) -> dict[str, Any]:
    return {"verdict": verdict, "policy": policy or None, "rule": rule, "ruleName": name or None}


def _by(policy: str, rule: int | None, name: str) -> str:
    from zta_authz.policy.rules.rule import rule_label

    return f"by {policy}, rule {rule_label(rule, name)}" if policy else "no policy matches"
