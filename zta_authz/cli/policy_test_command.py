"""`zta-authz test`: run policy tests with the code that `serve` uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.cli.output import add_output_argument
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import Console

    from zta_authz.cli.policy_tests import CaseResult, Suite

    Results = list[tuple[Suite, list[CaseResult]]]

EXIT_FAILURES: Final = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "test",
        help="run policy tests",
        description="Run the tests of PolicyTest documents: in files, and in every *_test.yaml below directories.",
        epilog=epilog(
            "0 all tests passed, 1 a test failed, 2 tests or policies have faults, or there are no tests",
            "policy-tests.md",
            "zta-authz test tests/",
            "zta-authz test tests/ -k frontend --watch",
            "zta-authz test tests/ --coverage --junit report.xml",
        ),
    )
    command.add_argument("paths", metavar="PATH", nargs="+", help="test files, or directories with test files")
    command.add_argument("--junit", metavar="FILE", help="also write a JUnit XML report")
    command.add_argument(
        "-k",
        "--filter",
        metavar="TEXT",
        default="",
        help="run only tests whose name contains this text or matches this pattern (* ? [])",
    )
    command.add_argument("--coverage", action="store_true", help="list the rules that no test reaches")
    command.add_argument("--watch", action="store_true", help="run the tests again whenever a test or policy changes")
    add_output_argument(command)
    command.set_defaults(run=run, usage_error=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Run the tests. Raises `FaultsError` with every fault of every file, without running any test."""
    from zta_authz.cli.watching import repeat_on_change

    if not arguments.watch:
        return _run_once(arguments, [])
    if arguments.output == "json" or arguments.junit:
        arguments.usage_error("--watch can't be combined with --output json or --junit")
    known: dict[str, None] = dict.fromkeys(arguments.paths)

    def run_again() -> list[str]:
        _watch_once(arguments, known)
        return list(known)

    repeat_on_change(run_again)
    return 0


def _watch_once(arguments: argparse.Namespace, known: dict[str, None]) -> None:
    """Run the tests once and print faults without raising. Adds the paths of policies to `known`."""
    import sys

    from zta_authz.cli.fault_lines import print_faults

    policies: list[str] = []
    try:
        _run_once(arguments, policies)
    except FaultsError as error:
        print_faults(error.faults, excerpts=True)
        policies += [fault.source for fault in error.faults]  # includes policies that could not be loaded
    known.update(dict.fromkeys(policies))
    print("watching for changes; stop with Ctrl-C", flush=True, file=sys.stderr)
    sys.stdout.flush()


def _run_once(arguments: argparse.Namespace, policies: list[str]) -> int:
    """Run the tests once and return the exit status. Adds the paths of policies to `policies`."""
    import time

    from zta_authz.cli.junit import write_junit
    from zta_authz.cli.policy_tests import run_case

    now = time.time()
    faults: list[Fault] = []
    suites = _load(arguments.paths, faults)
    policies += [path for suite in suites for path in suite.evaluator.paths]
    cases = [(suite, [case for case in suite.cases if _chosen(case.name, arguments.filter)]) for suite in suites]
    if not faults and not any(chosen for _, chosen in cases):
        hint = "write a part of the name (case is ignored), or a pattern for the whole name with `*`, `?` and `[]`"
        faults.append(Fault("--filter", 0, 0, f"no test name matches `{arguments.filter}`", hint))
    results = [] if faults else [(suite, [run_case(suite, case, now) for case in chosen]) for suite, chosen in cases]
    if arguments.junit:
        texts = {id(result): _failure_text(suite, result) for suite, case_results in results for result in case_results}
        write_junit(arguments.junit, results, texts, faults)
    if faults:
        raise FaultsError(faults)
    if arguments.output == "json":
        _print_json(results, coverage=arguments.coverage)
    else:
        _print_text(results, coverage=arguments.coverage)
    return EXIT_FAILURES if any(result.differences for _, case_results in results for result in case_results) else 0


def _chosen(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    name, pattern = name.lower(), pattern.lower()
    return fnmatchcase(name, pattern) if any(char in pattern for char in "*?[") else pattern in name


def _load(paths: Sequence[str], faults: list[Fault]) -> list[Suite]:
    from zta_authz.cli.policy_tests import find_files, load_suites

    return [suite for file in find_files(paths, faults) for suite in load_suites(file, faults)]


def _counts(results: Results) -> dict[str, int]:
    case_results = [result for _, case_results in results for result in case_results]
    failed = sum(bool(result.differences) for result in case_results)
    return {"tests": len(case_results), "passed": len(case_results) - failed, "failed": failed}


def _print_json(results: Results, *, coverage: bool) -> None:
    from zta_authz.cli.decision_output import decision_fields
    from zta_authz.cli.output import print_json
    from zta_authz.cli.policy_coverage import coverage_of

    tests: list[dict[str, Any]] = [
        {
            "source": suite.source,
            "line": result.case.line,
            "name": result.case.name,
            "passed": not result.differences,
            "expected": result.case.expected,
            "got": result.got,
            "decision": decision_fields(suite.evaluator, result.case.subject, result.explanation),
        }
        for suite, case_results in results
        for result in case_results
    ]
    fields = {"coverage": coverage_of(results).fields()} if coverage else {}
    print_json("PolicyTestResult", {"summary": _counts(results), "tests": tests, **fields})


def _print_text(results: Results, *, coverage: bool) -> None:
    from zta_authz.cli.output import one_line, stdout_console

    console = stdout_console()
    for suite, case_results in results:
        for result in case_results:
            _print_result(console, suite, result)
    for note in dict.fromkeys(
        note
        for suite, case_results in results
        for result in case_results
        for note in suite.evaluator.unjudged(result.case.subject)
    ):
        console.print(f"note: {one_line(note)}", soft_wrap=True, markup=False, highlight=False)
    if coverage:
        _print_coverage(console, results)
    counts = _counts(results)
    style = "bold red" if counts["failed"] else "bold green"
    console.print(f"{counts['tests']} tests: {counts['passed']} passed, {counts['failed']} failed", style=style)


def _print_coverage(console: Console, results: Results) -> None:
    from zta_authz.cli.output import one_line
    from zta_authz.cli.policy_coverage import coverage_of

    coverage = coverage_of(results)
    for missed in coverage.missed:
        console.print(one_line(str(missed)), soft_wrap=True, style="yellow")
    console.print(f"{coverage.rules - len(coverage.missed)} of {coverage.rules} rules reached", soft_wrap=True)


def _print_result(console: Console, suite: Suite, result: CaseResult) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from zta_authz.cli.decision_output import print_lines
    from zta_authz.cli.output import one_line

    failed = bool(result.differences)
    line = Text("FAIL" if failed else "pass", style="bold red" if failed else "green")
    name = one_line(f"  {suite.source}:{result.case.line}  {result.case.name}")
    console.print(line.append(name, style="not bold default"), soft_wrap=True)
    if not failed:
        return
    console.print(Padding(_diff(result), (0, 0, 0, 6), expand=False))
    for line in print_lines(suite.evaluator, result.case.subject, result.explanation):
        console.print(Text("      ").append_text(line), soft_wrap=True)


def _diff(result: CaseResult) -> Any:
    """Return a table of expected and actual values; fields that differ are coloured."""
    from rich.table import Table
    from rich.text import Text

    from zta_authz.cli.output import one_line

    table = Table("", "expected", "got", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, expected in result.case.expected.items():
        differs = name in result.differences
        got = result.got[name]
        table.add_row(
            name,
            Text(one_line(str(expected)), style="green" if differs else ""),
            Text(one_line("none" if got is None else str(got)), style="red" if differs else ""),
        )
    return table


def _failure_text(suite: Suite, result: CaseResult) -> str:
    from zta_authz.cli.decision_output import print_lines

    lines = [f"{name}: expected {result.case.expected[name]}, got {result.got[name]}" for name in result.differences]
    lines += [line.plain for line in print_lines(suite.evaluator, result.case.subject, result.explanation)]
    return "\n".join(lines)
