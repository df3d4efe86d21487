"""`zta-authz check`: validate policies as `serve` does, and warn of rules that are probably mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.cli.output import add_output_argument
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    import argparse

    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.lint.linter import Finding
    from zta_authz.settings import Settings

EXIT_WARNINGS: Final = 1
EXIT_FAULTS: Final = 2


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog
    from zta_authz.cli.command_inputs import add_settings_arguments

    command = subparsers.add_parser(
        "check",
        help="validate policies, and warn of probable mistakes",
        description="Load policies exactly as `serve` does. Print every fault as file:line:column, then the warnings.",
        epilog=epilog(
            "0 no faults (warnings are possible), 1 warnings with --strict-warnings, 2 faults",
            "cli.md#check",
            "zta-authz check policies/",
            "zta-authz check policies/ --strict-warnings -n shop -l app=orders",
            "zta-authz check --config settings.yaml -o json",
        ),
    )
    command.add_argument(
        "paths", metavar="PATH", nargs="*", help="files or directories (default: `policies` of the settings)"
    )
    command.add_argument("--strict-warnings", action="store_true", help="exit with status 1 if there are warnings")
    add_output_argument(command)
    add_settings_arguments(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check. Raises `FaultsError` if there are faults and the output is text."""
    import time
    from dataclasses import replace

    from zta_authz.cli.command_inputs import options_for, read_settings
    from zta_authz.cli.fact_warnings import fact_sources, model_warnings
    from zta_authz.cli.policy_warnings import findings_of, unmintable_tokens
    from zta_authz.policy_sources.files import load_snapshot

    try:
        settings = read_settings(arguments)
        snapshot = load_snapshot(arguments.paths or settings.policies, options_for(settings, arguments.paths))
    except FaultsError as error:
        if arguments.output != "json":
            raise
        _print_json(error.faults, None, [])
        return EXIT_FAULTS
    known = arguments.config is not None or not arguments.paths
    facts = fact_sources(settings, snapshot, known=known)
    snapshot = _with_outlook(settings, snapshot, whole=not arguments.paths)
    unmintable = unmintable_tokens(snapshot, settings) if known else []
    snapshot = replace(snapshot, warnings=(*snapshot.warnings, *model_warnings(snapshot, facts), *unmintable))
    findings = findings_of(snapshot, time.time(), facts)
    if arguments.output == "json":
        _print_json((), snapshot, findings)
    else:
        _print_text(snapshot, findings)
    return EXIT_WARNINGS if arguments.strict_warnings and _warnings(snapshot, findings) else 0


def _with_outlook(settings: Settings, snapshot: Snapshot, *, whole: bool) -> Snapshot:
    """Add warnings about trust and keys, and a note if `root_documents.paths` is not applied."""
    import time
    from dataclasses import replace

    from zta_authz.cli.policy_warnings import unreachable_keys
    from zta_authz.cli.trust_warnings import outlook_warnings

    trust = outlook_warnings(settings, snapshot, time.time(), whole=whole)
    if not whole and settings.root_documents.paths is not None:
        message = "`root_documents.paths` is not applied to files named on the command line"
        note = Fault("root_documents", 0, 0, message, "leave the files out to check those of the settings")
        snapshot = replace(snapshot, notes=(*snapshot.notes, note))
    return replace(snapshot, warnings=(*snapshot.warnings, *trust, *unreachable_keys(snapshot, settings)))


def _warnings(snapshot: Snapshot, findings: list[Finding]) -> int:
    return len(snapshot.warnings) + sum(finding.level == "warning" for finding in findings)


def _summary(snapshot: Snapshot, findings: list[Finding]) -> dict[str, int]:
    warnings = _warnings(snapshot, findings)
    return {
        "sources": len(snapshot.sources),
        "policies": len(snapshot.table.policies),
        "rules": snapshot.table.rule_count,
        "warnings": warnings,
        "notes": len(findings) + len(snapshot.warnings) + len(snapshot.notes) - warnings,
    }


def _print_json(faults: tuple[Fault, ...], snapshot: Snapshot | None, findings: list[Finding]) -> None:
    from zta_authz.cli.output import fault_fields, print_json

    fields: dict[str, Any] = {"ok": not faults, "faults": [fault_fields(fault) for fault in faults], "warnings": []}
    if snapshot is not None:
        fields["warnings"] = [
            {"kind": kind, "level": level, "policy": None, "rule": None, "ruleName": None, **fault_fields(fault)}
            for kind, level, faults in (("document", "warning", snapshot.warnings), ("skipped", "info", snapshot.notes))
            for fault in sorted(faults)
        ]
        fields["warnings"] += [
            {
                "kind": finding.kind.value,
                "level": finding.level.value,
                "policy": finding.policy,
                "rule": finding.rule,
                "ruleName": finding.rule_name or None,
                "source": finding.source,
                "line": finding.line,
                "column": None,
                "message": finding.message,
                "hint": finding.hint,
            }
            for finding in findings
        ]
        fields["summary"] = _summary(snapshot, findings)
        fields["digest"] = snapshot.digest
    print_json("CheckResult", fields)


def _print_text(snapshot: Snapshot, findings: list[Finding]) -> None:
    from rich.text import Text

    from zta_authz.cli.output import one_line, stdout_console
    from zta_authz.policy.rules.rule import rule_label

    console = stdout_console()
    lines = [(fault.place, "warning", fault.message, fault.hint) for fault in sorted(snapshot.warnings)]
    lines += [(fault.place, "info", fault.message, fault.hint) for fault in sorted(snapshot.notes)]
    for finding in findings:
        rule = rule_label(finding.rule, finding.rule_name)
        message = f"rule {rule} of `{finding.policy}`: {finding.message} [{finding.kind.value}]"
        lines.append((f"{finding.source}:{finding.line}", finding.level.value, message, finding.hint))
    for place, level, message, hint in lines:
        line = Text(one_line(place), style="bold").append(": ")
        line.append(level, style="yellow" if level == "warning" else "cyan")
        line.append(one_line(f": {message}"), style="not bold")
        line.append(one_line(f"; {hint}" if hint else ""), style="not bold green")
        console.print(line, soft_wrap=True)
    counts = _summary(snapshot, findings)
    counts["files"] = counts.pop("sources")
    shown = ", ".join(f"{name}: {counts[name]}" for name in ("files", "policies", "rules", "warnings", "notes"))
    console.print(f"ok ({shown})", soft_wrap=True)
