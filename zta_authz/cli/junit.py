"""Write results of policy tests as JUnit XML for CI systems."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from zta_authz.cli.output import one_line
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zta_authz.cli.policy_tests import CaseResult, Suite


def write_junit(
    file: str, results: Iterable[tuple[Suite, Sequence[CaseResult]]], texts: dict[int, str], faults: Sequence[Fault]
) -> None:
    """Write the report. `texts` has the text of each failure by the `id` of its result. Raises `FaultsError`.

    Each fault that prevented the tests from running is an error in the report.
    """
    root = Element("testsuites", name="zta-authz")
    for suite, case_results in results:
        failed = sum(bool(result.differences) for result in case_results)
        element = _suite(root, suite.source, tests=len(case_results), failures=failed, errors=0)
        for result in case_results:
            case = _case(element, suite.source, result.case.name, result.case.line)
            if result.differences:
                failure = SubElement(case, "failure", message=_xml_text(f"differs in {', '.join(result.differences)}"))
                failure.text = _xml_text(texts[id(result)])
    if faults:
        element = _suite(root, "faults", tests=len(faults), failures=0, errors=len(faults))
        for fault in faults:
            case = _case(element, fault.source, fault.message, fault.line)
            SubElement(case, "error", message=_xml_text(str(fault)))
    indent(root)
    try:
        ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        fault = Fault(file, 0, 0, f"cannot be written: {error.strerror}", "name a writable file in --junit")
        raise FaultsError([fault]) from None


def _suite(root: Element, name: str, **counts: int) -> Element:
    return SubElement(root, "testsuite", {"name": _xml_text(name), **{key: str(n) for key, n in counts.items()}})


def _case(suite: Element, source: str, name: str, line: int) -> Element:
    source = _xml_text(source)
    return SubElement(suite, "testcase", classname=source, name=_xml_text(name), file=source, line=str(line))


def _xml_text(text: str) -> str:
    """Escape the characters that XML 1.0 forbids (control characters, lone surrogates). Line ends are kept."""
    return "\n".join(one_line(line) for line in text.split("\n"))
