"""`zta-authz devices`: print what the inventories say about a device, and what the rules would make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zta_authz.cli.output import add_output_argument
from zta_authz.cli.time_argument import time_argument

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from zta_authz.facts.device_table import Device, DeviceTable
    from zta_authz.model.facts import DeviceFacts
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.rule import Rule

EXIT_NO: Final = 1
_MAX_SHOWN: Final = 20
_DEVICE_CLAUSES: Final = ("require.device.", "zta.device.")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    page = "cli.md#devices"
    command = subparsers.add_parser(
        "devices",
        help="print what the device inventories say",
        description="Print what the device inventories of the policies say.",
        epilog=epilog("0 yes, 1 no, 2 faults", page, "zta-authz devices show laptop-1 --config settings.yaml"),
    )
    actions = command.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    show = actions.add_parser(
        "show",
        help="print a device's facts, their age, and what each rule would make of them",
        description="Print a device's facts as rules read them, and each rule that requires something of a device.",
        epilog=epilog(
            "0 found, 1 no inventory has the device, 2 faults",
            page,
            "zta-authz devices show laptop-1 --config settings.yaml",
            "zta-authz devices show spiffe://cluster.local/device/1 --policies policies/ --directory data/ -o json",
        ),
    )
    show.add_argument("id", metavar="ID", help="the device's id, or the identifier of its certificate")
    show.add_argument("--at", metavar="TIME", type=time_argument, help="as of this time, RFC 3339 (default: now)")
    check = actions.add_parser(
        "check",
        help="load every inventory, and count devices whose facts do not count",
        description="Load every inventory, and count malformed records and devices that are stale or conflicting.",
        epilog=epilog(
            "0 every device counts, 1 some do not, 2 faults", page, "zta-authz devices check --config settings.yaml"
        ),
    )
    check.add_argument("--at", metavar="TIME", type=time_argument, help="as of this time, RFC 3339 (default: now)")
    for action, run in ((show, run_show), (check, run_check)):
        _add_inputs(action)
        action.set_defaults(run=run)


def _add_inputs(command: argparse.ArgumentParser) -> None:
    from zta_authz.cli.command_inputs import add_settings_arguments

    command.add_argument(
        "--policies",
        metavar="PATH",
        nargs="+",
        default=[],
        help="files or directories (default: `policies` of the settings)",
    )
    command.add_argument(
        "--directory",
        metavar="DIR",
        help="where the inventories' files are (default: `facts.directory` of the settings)",
    )
    add_output_argument(command)
    add_settings_arguments(command)


class _Loaded(NamedTuple):
    snapshot: Snapshot
    tables: dict[str, DeviceTable]
    now: float


def _load(arguments: argparse.Namespace) -> _Loaded:
    """Load policies and inventories. Raises `FaultsError` with the faults of either."""
    import time

    from zta_authz.cli.command_inputs import options_for, read_settings
    from zta_authz.errors import Fault, FaultsError
    from zta_authz.facts.devices import read_tables
    from zta_authz.policy_sources.files import load_snapshot

    settings = read_settings(arguments)
    paths = arguments.policies or settings.policies
    snapshot = load_snapshot(paths, options_for(settings, arguments.policies))
    if not snapshot.models.inventories:
        hint = "add a DeviceInventory, or name other files with --policies"
        raise FaultsError([Fault(", ".join(map(str, paths)), 0, 0, "has no DeviceInventory", hint)])
    tables = read_tables(arguments.directory or settings.facts.directory or "", snapshot.models.inventories)
    return _Loaded(snapshot, tables, time.time() if arguments.at is None else arguments.at)


class _Match(NamedTuple):
    """A device of one inventory, the identifiers that lead to it, and its facts."""

    device: Device
    identifiers: list[str]
    facts: DeviceFacts


def _find(loaded: _Loaded, device_id: str) -> Iterator[_Match]:
    from zta_authz.facts.device_files import certificate_identifier
    from zta_authz.policy.rules.device_identity import BY_CERTIFICATE, BY_ID, InventoryDevices

    for inventory in loaded.snapshot.models.inventories:
        known = loaded.tables[inventory.full_name].devices
        keys = (BY_ID + device_id, BY_CERTIFICATE + certificate_identifier(device_id, inventory.source))
        devices = {held.device_id: held for key in keys if (held := known.get(key)) is not None}
        for device in devices.values():
            identifiers = [key for key, held in known.items() if held.device_id == device.device_id]
            yield _Match(device, identifiers, InventoryDevices(inventory).facts_of(device, "id", loaded.now))


def run_show(arguments: argparse.Namespace) -> int:
    """Print one device. Returns 1 if no inventory has it."""
    from zta_authz.cli.output import one_line, print_json, stdout_console

    loaded = _load(arguments)
    matches = list(_find(loaded, arguments.id))
    if arguments.output == "json":
        devices = [_device_fields(loaded, one) for one in matches]
        print_json("Devices", {"id": arguments.id, "devices": devices})
    else:
        console = stdout_console()
        lines = (line for one in matches for line in _device_lines(loaded, one))
        for line in lines if matches else [f"no inventory has the device `{arguments.id}`"]:
            console.print(one_line(line), soft_wrap=True)
    return 0 if matches else EXIT_NO


def _device_fields(loaded: _Loaded, match: _Match) -> dict[str, Any]:
    from zta_authz.cli.decision_output import time_text

    def at(time: float | None) -> str | None:
        return None if time is None else time_text(time)

    facts = sorted((match.facts.fields or {}).items())
    return {
        "id": match.device.device_id,
        "inventory": match.facts.inventory,
        "identifiers": match.identifiers[:_MAX_SHOWN],
        "conflicting": match.device.conflicting,
        "postureAt": at(match.device.posture_at),
        "seenAt": at(match.device.seen_at),
        "fields": [
            {"name": name, "state": fact.state, "value": fact.value, "observedAt": at(fact.observed_at)}
            for name, fact in facts
        ],
        "rules": [
            {
                "policy": rule.policy.name,
                "rule": rule.number,
                "action": rule.policy.action,
                "clauses": [
                    {"name": clause.label, "expected": clause.expected, "actual": actual, "holds": holds}
                    for clause, actual, holds in clauses
                ],
            }
            for rule, clauses in _rules(loaded, match.facts)
        ],
    }


def _device_lines(loaded: _Loaded, match: _Match) -> Iterator[str]:
    from zta_authz.pdp.explain_facts import describe_field

    yield f"{match.device.device_id}  in {match.facts.inventory}"
    for identifier in match.identifiers[:_MAX_SHOWN]:
        yield f"  found by  {identifier}"
    if match.device.conflicting:
        yield "  CONFLICTING: two records of the inventory contradict each other, or two devices have one certificate"
    for name, fact in sorted((match.facts.fields or {}).items()):
        yield f"  {describe_field(name, fact, loaded.now)}"
    for rule, clauses in _rules(loaded, match.facts):
        yield f"  {rule.policy.action} {rule.policy.name} rule {rule.label}"
        for clause, actual, holds in clauses:
            yield f"    {'holds' if holds else 'FAILS'}  {clause.label}: {clause.expected}; is {actual}"


def _rules(loaded: _Loaded, device: DeviceFacts) -> Iterator[tuple[Rule, list[tuple[Clause, str, bool]]]]:
    """Each rule that looks at a device, with those clauses: what they find, and whether they hold."""
    inputs = _inputs(loaded, device)
    for policy in loaded.snapshot.table.policies:
        for rule in policy.rules:
            every = [*rule.clauses, *(clause for group in rule.groups for some in group for clause in some)]
            looking = [clause for clause in every if any(name in clause.label for name in _DEVICE_CLAUSES)]
            deny = policy.ref.action == "DENY"
            if looking:
                yield rule, [(clause, clause.actual(inputs), clause.holds(inputs, deny)) for clause in looking]


def _inputs(loaded: _Loaded, device: DeviceFacts) -> Inputs:
    from zta_authz.model.facts import FactViews
    from zta_authz.model.identity import ANONYMOUS
    from zta_authz.model.request import RequestAttributes
    from zta_authz.policy.rules.fact_reader import FactOpener
    from zta_authz.policy.rules.inputs import Inputs

    opener = FactOpener(views=FactViews(assumed_device=device))
    return Inputs(RequestAttributes(), ANONYMOUS, loaded.snapshot.table.options, loaded.now, None, opener)


def run_check(arguments: argparse.Namespace) -> int:
    """Print each inventory's numbers. Returns 1 if a device or a record does not count."""
    from zta_authz.cli.output import one_line, print_json, stdout_console

    loaded = _load(arguments)
    counts = [_count(loaded, name) for name in sorted(loaded.tables)]
    if arguments.output == "json":
        print_json("DeviceInventories", {"inventories": counts})
    else:
        console = stdout_console()
        for count in counts:
            numbers = ", ".join(f"{count[name]} {name}" for name in ("devices", "stale", "conflicting", "malformed"))
            console.print(one_line(f"{count['inventory']}: {numbers}"), soft_wrap=True)
    return EXIT_NO if any(count["stale"] or count["conflicting"] or count["malformed"] for count in counts) else 0


def _count(loaded: _Loaded, name: str) -> dict[str, Any]:
    from zta_authz.model.facts import Unknown
    from zta_authz.policy.rules.device_identity import BY_ID, problem_of

    inventory = next(one for one in loaded.snapshot.models.inventories if one.full_name == name)
    table, stale, conflicting = loaded.tables[name], 0, 0
    for key, device in table.devices.items():
        if key.startswith(BY_ID):
            problem = problem_of(inventory, device, loaded.now)
            stale += problem is Unknown.STALE
            conflicting += problem is Unknown.CONFLICTING
    return {
        "inventory": name,
        "devices": table.size,
        "stale": stale,
        "conflicting": conflicting,
        "malformed": table.skipped,
    }
