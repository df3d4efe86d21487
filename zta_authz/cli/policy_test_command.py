"""`zta-authz test`: policy unit tests, on the same core that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.cli.output import add_output_argument
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import Console

    from zta_authz.cli.policy_tests import Outcome, Suite

    Results = list[tuple[Suite, list[Outcome]]]

EXIT_FAILURES: Final = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "test",
        help="run policy tests",
        description="Run the tests of PolicyTest documents: files, and every *_test.yaml below directories.",
        epilog=epilog(
            "0 all passed, 1 a test failed, 2 tests or policies have faults, or there are no tests",
            "policy-tests.md",
            "zta-authz test tests/",
            "zta-authz test tests/ --junit report.xml",
        ),
    )
    command.add_argument("paths", metavar="PATH", nargs="+", help="test files, or directories to look for them in")
    command.add_argument("--junit", metavar="FILE", help="write a JUnit XML report too")
    add_output_argument(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the tests. Raises `FaultsError` with every fault of every file; no test is run then."""
    import time

    from zta_authz.cli.junit import write_junit
    from zta_authz.cli.policy_tests import run_case

    now = time.time()
    faults: list[Fault] = []
    suites = _load(arguments.paths, faults)
    results = [] if faults else [(suite, [run_case(suite, case, now) for case in suite.cases]) for suite in suites]
    if arguments.junit:
        texts = {id(outcome): _failure_text(suite, outcome) for suite, outcomes in results for outcome in outcomes}
        write_junit(arguments.junit, results, texts, faults)
    if faults:
        raise FaultsError(faults)
    if arguments.output == "json":
        _print_json(results)
    else:
        _print_text(results)
    return EXIT_FAILURES if any(outcome.differences for _, outcomes in results for outcome in outcomes) else 0


def _load(paths: Sequence[str], faults: list[Fault]) -> list[Suite]:
    from zta_authz.cli.policy_tests import find_files, load_suites

    return [suite for file in find_files(paths, faults) for suite in load_suites(file, faults)]


def _counts(results: Results) -> dict[str, int]:
    outcomes = [outcome for _, outcomes in results for outcome in outcomes]
    failed = sum(bool(outcome.differences) for outcome in outcomes)
    return {"tests": len(outcomes), "passed": len(outcomes) - failed, "failed": failed}


def _print_json(results: Results) -> None:
    from zta_authz.cli.outcome import decision_fields
    from zta_authz.cli.output import print_json

    tests: list[dict[str, Any]] = [
        {
            "source": suite.source,
            "line": outcome.case.line,
            "name": outcome.case.name,
            "passed": not outcome.differences,
            "expected": outcome.case.expected,
            "got": outcome.got,
            "decision": decision_fields(suite.evaluator, outcome.case.subject, outcome.explanation),
        }
        for suite, outcomes in results
        for outcome in outcomes
    ]
    print_json("PolicyTestResult", {"summary": _counts(results), "tests": tests})


def _print_text(results: Results) -> None:
    from zta_authz.cli.output import one_line, stdout_console

    console = stdout_console()
    for suite, outcomes in results:
        for outcome in outcomes:
            _print_outcome(console, suite, outcome)
    for note in dict.fromkeys(
        note
        for suite, outcomes in results
        for outcome in outcomes
        for note in suite.evaluator.unjudged(outcome.case.subject)
    ):
        console.print(f"note: {one_line(note)}", soft_wrap=True, markup=False, highlight=False)
    counts = _counts(results)
    style = "bold red" if counts["failed"] else "bold green"
    console.print(f"{counts['tests']} tests: {counts['passed']} passed, {counts['failed']} failed", style=style)


def _print_outcome(console: Console, suite: Suite, outcome: Outcome) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from zta_authz.cli.outcome import print_lines
    from zta_authz.cli.output import one_line

    failed = bool(outcome.differences)
    line = Text("FAIL" if failed else "pass", style="bold red" if failed else "green")
    name = one_line(f"  {suite.source}:{outcome.case.line}  {outcome.case.name}")
    console.print(line.append(name, style="not bold default"), soft_wrap=True)
    if not failed:
        return
    console.print(Padding(_diff(outcome), (0, 0, 0, 6), expand=False))
    for each in print_lines(suite.evaluator, outcome.case.subject, outcome.explanation):
        console.print(Text("      ").append_text(each), soft_wrap=True)


def _diff(outcome: Outcome) -> Any:
    """Expected beside got, the fields that differ marked."""
    from rich.table import Table
    from rich.text import Text

    from zta_authz.cli.output import one_line

    table = Table("", "expected", "got", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, wanted in outcome.case.expected.items():
        differs = name in outcome.differences
        got = outcome.got[name]
        table.add_row(
            name,
            Text(one_line(str(wanted)), style="green" if differs else ""),
            Text(one_line("none" if got is None else str(got)), style="red" if differs else ""),
        )
    return table


def _failure_text(suite: Suite, outcome: Outcome) -> str:
    from zta_authz.cli.outcome import print_lines

    lines = [f"{name}: expected {outcome.case.expected[name]}, got {outcome.got[name]}" for name in outcome.differences]
    lines += [line.plain for line in print_lines(suite.evaluator, outcome.case.subject, outcome.explanation)]
    return "\n".join(lines)
