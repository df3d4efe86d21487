"""Read and run `PolicyTest` documents: policies, options, and requests with their expected decisions."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from zta_authz.cli.command_inputs import as_text, read_small_file
from zta_authz.cli.fact_arguments import read_points
from zta_authz.cli.policy_evaluator import PolicyEvaluator
from zta_authz.cli.request_files import parse_time, read_request
from zta_authz.errors import DENIAL_RESPONSES, Fault, FaultsError, Reason
from zta_authz.minting.claims import terms_in_force
from zta_authz.model.decision import DecisionFacts, Verdict
from zta_authz.model.trust import HUNDREDTHS, TrustLevel
from zta_authz.pdp.explain_facts import fact_lines
from zta_authz.policy.rules.require_trust import COMPONENTS
from zta_authz.policy.yaml.fields import Reader, entries
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar, locate, read_documents, to_plain
from zta_authz.settings import Settings
from zta_authz.settings.consistency import inconsistencies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zta_authz.cli.request_files import Subject
    from zta_authz.model.decision import Decision
    from zta_authz.model.options import Options
    from zta_authz.model.trust import TrustAssessment
    from zta_authz.pdp.explain import Explanation

API_VERSION: Final = "zta.dev/v1"
KIND: Final = "PolicyTest"
SUFFIXES: Final = ("_test.yaml", "_test.yml", "_test.json")
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
_FIELDS: Final = ("apiVersion", "kind", "policies", "options", "at", "tests")
_TEST_FIELDS: Final = ("name", "request", "at", "expect")
_EXPECT_FIELDS: Final = ("verdict", "deny", "reason", "policy", "rule", "acr", "trust", "mint")
OPTION_FIELDS: Final = (
    "semantics", "default_action", "workload", "workloads", "gateways", "root_namespace", "peer", "client_address",
    "paths",
)  # fmt: skip
"""The settings that affect decisions, named as in the settings file."""


Expected = str | int | float | list[str]
_TRUST: Final = "trust."


@dataclass(frozen=True, slots=True)
class Case:
    """One test. `expected` has the given fields, with `trust.…` for those of `trust`; `at` None is now.

    Scores (`trust.score`, `trust.user`) are in points, from 0 to 100.
    """

    name: str
    line: int
    subject: Subject
    at: float | None
    expected: dict[str, Expected]


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one document, and the evaluator of its policies."""

    source: str
    evaluator: PolicyEvaluator
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of one test. `got` has the same keys as `case.expected`."""

    case: Case
    got: dict[str, Expected | None]
    explanation: Explanation

    @property
    def differences(self) -> list[str]:
        """The names of the fields that differ from the expected values."""
        return [name for name, expected in self.case.expected.items() if self.got[name] != expected]


def run_case(suite: Suite, case: Case, now: float) -> CaseResult:
    """Run one test, as of `now` if the test has no time."""
    at = now if case.at is None else case.at
    explanation = suite.evaluator.explain(case.subject, at)
    got = _decision_fields(explanation.decision)
    if any(name.startswith(_TRUST) for name in case.expected):
        assessment = _assessed(suite.evaluator, case.subject, at)
        got |= {} if assessment is None else _trust_fields(assessment)
        if explanation.decision.facts is None or explanation.decision.facts.trust is None:
            lines = fact_lines(DecisionFacts(trust=assessment), at)
            explanation = replace(explanation, facts=(*explanation.facts, *lines))
    if isinstance(case.expected.get("rule"), str):
        got["rule"] = explanation.decision.rule_name or explanation.decision.rule
    return CaseResult(case, {name: got.get(name) for name in case.expected}, explanation)


def _assessed(evaluator: PolicyEvaluator, subject: Subject, at: float) -> TrustAssessment | None:
    """The assessment, whether or not a rule asks for it; None without a trust model."""
    _, inputs, models = evaluator.facts(subject, at)
    return None if models.trust is None else models.trust.assess(inputs)


def _trust_fields(assessment: TrustAssessment) -> dict[str, Expected | None]:
    scores = {"score": assessment.score, **assessment.components}
    return {
        f"{_TRUST}level": assessment.level.name,
        **{_TRUST + name: score / HUNDREDTHS for name, score in scores.items()},
    }


def _decision_fields(decision: Decision) -> dict[str, Expected | None]:
    terms = terms_in_force(decision)
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason.value,
        "policy": decision.policy or None,
        "rule": decision.rule,
        "acr": None if decision.remedy is None else list(decision.remedy.acr),
        "mint": None if terms is None else terms.audience,
    }


def find_files(paths: Sequence[str], faults: list[Fault]) -> list[str]:
    """Return the named files, and every `*_test.yaml` below named directories, without duplicates."""
    files: dict[str, None] = {}
    for path in paths:
        if not os.path.isdir(path):
            files.setdefault(path)
            continue
        there = (file for file in Path(path).rglob("*") if file.is_file())
        below = sorted(str(file) for file in there if file.name.lower().endswith(SUFFIXES))
        if not below:
            faults.append(Fault(path, 0, 0, "the directory has no test files", "name test files `*_test.yaml`"))
        for file in below:
            files.setdefault(file)
    return list(files)


def load_suites(file: str, faults: list[Fault]) -> list[Suite]:
    """Read the suites of one file and compile their policies. Adds all faults to `faults`."""
    before = len(faults)
    try:
        text = as_text(file, read_small_file(file, "name a file with a PolicyTest", MAX_FILE_BYTES))
    except FaultsError as error:
        faults += error.faults
        return []
    suites = [
        suite
        for node in read_documents(file, text, faults)
        if (suite := _SuiteReader(Reader(file, faults), Path(file).parent).read(node)) is not None
    ]
    if not suites and len(faults) == before:
        faults.append(Fault(file, 1, 1, "the file has no test", f"write a {KIND} document"))
    return suites


class _SuiteReader:
    """Reads one document. Paths in it are relative to `folder`."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self._reader = reader
        self._folder = folder
        self._names: dict[str, int] = {}

    def read(self, node: Node) -> Suite | None:
        """Return the suite; None if it or its policies have faults."""
        reader = self._reader
        before = len(reader.faults)
        document = reader.mapping(node, KIND, _FIELDS)
        if document is None:
            return None
        for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
            value = reader.required(document, field, "the document")
            text = None if value is None else reader.string(value, field)
            if value is not None and text is not None and text != expected:
                reader.fault(value, f"`{field}` is `{text}`", f"write `{expected}`")
        paths = self._paths(document)
        options = self._options(document.get("options"))
        cases = list(self._cases(document, self._time(document)))
        if options is None or not paths:
            return None
        try:
            evaluator = PolicyEvaluator(paths, options)
        except FaultsError as error:
            reader.faults.extend(error.faults)
            return None
        return Suite(reader.source, evaluator, tuple(cases)) if len(reader.faults) == before else None

    def _paths(self, document: Mapping) -> list[str]:
        node = self._reader.required(document, "policies", KIND)
        names = [] if node is None else self._reader.strings(node, "policies")
        return [os.path.normpath(self._folder / name.value) for name in names]

    def _options(self, node: Node | None) -> Options | None:
        """Read the options and validate them as settings; None if they have faults."""
        mapping = Mapping(1, 1) if node is None else self._reader.mapping(node, "options", OPTION_FIELDS)
        if mapping is None:
            return None
        known = {name: to_plain(value) for name, value in entries(mapping) if name in OPTION_FIELDS}
        try:
            settings = Settings.model_validate_json(json.dumps(known))
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False):
                context = problem.get("ctx", {})
                at = f"options.{'.'.join(str(step) for step in problem['loc'])}"
                message = str(context.get("message") or problem["msg"])
                hint = str(context.get("hint") or "see docs/settings.md for this field")
                self._reader.fault(locate(mapping, problem["loc"]), f"`{at}`: {message}", hint)
            return None
        for conflict in inconsistencies(settings):
            self._reader.fault(locate(mapping, conflict.path), conflict.message, conflict.hint)
        return settings.options()

    def _time(self, node: Mapping) -> float | None:
        at = node.get("at")
        if at is None:
            return None
        try:
            return parse_time(at.value if isinstance(at, Scalar) else "")
        except ValueError as error:
            self._reader.fault(at, "`at` is not a time", str(error))
            return None

    def _cases(self, document: Mapping, at: float | None) -> Iterator[Case]:
        node = self._reader.required(document, "tests", KIND)
        for item in [] if node is None else self._reader.items(node, "tests", "tests"):
            case = self._case(item, at)
            if case is not None:
                yield case

    def _case(self, node: Node, at: float | None) -> Case | None:
        reader = self._reader
        test = reader.mapping(node, "a test", _TEST_FIELDS)
        if test is None:
            return None
        name_node = reader.required(test, "name", "a test")
        name = None if name_node is None else reader.string(name_node, "name")
        if name_node is not None and name is not None:
            first = self._names.setdefault(name, name_node.line)
            if first != name_node.line:
                reader.fault(name_node, f"duplicate test `{name}` (first at line {first})", "rename one of the two")
        request = reader.required(test, "request", "a test")
        subject = None if request is None else read_request(reader, request, self._folder)
        own = self._time(test)
        expected = self._expected(test)
        if name is None or subject is None or not expected:
            return None
        return Case(name, node.line, subject, at if own is None else own, expected)

    def _expected(self, test: Mapping) -> dict[str, Expected]:
        reader = self._reader
        node = reader.required(test, "expect", "a test")
        expect = None if node is None else reader.mapping(node, "expect", _EXPECT_FIELDS)
        enough = expect is not None and any(expect.get(name) is not None for name in ("deny", "trust"))
        if expect is None or (not enough and reader.required(expect, "verdict", "expect") is None):
            return {}
        expected: dict[str, Expected] = {}
        for name, value in entries(expect):
            match name:
                case "verdict":
                    self._word(expected, name, value, [str(verdict) for verdict in Verdict])
                case "reason":
                    self._word(expected, name, value, [str(reason) for reason in Reason])
                case "deny":
                    self._denial(expected, expect, value)
                case "acr":
                    expected["acr"] = [item.value for item in reader.strings(value, "acr")]
                case "policy" | "mint":
                    self._text(expected, name, value)
                case "rule":
                    self._rule(expected, expect, value)
                case "trust":
                    self._trust(expected, value)
        return expected

    def _trust(self, expected: dict[str, Expected], node: Node) -> None:
        """`trust: {level: MEDIUM, score: 70.5, device: 40}`."""
        mapping = self._reader.mapping(node, "expect.trust", ("level", "score", *COMPONENTS))
        if mapping is not None and not mapping.entries:
            self._reader.fault(node, "`expect.trust` is empty", "add `level`, `score` or a component like `device: 40`")
        if mapping is None:
            return
        for name, value in entries(mapping):
            if name == "level":
                words: dict[str, Expected] = {}
                self._word(words, name, value, list(TrustLevel.__members__))
                expected |= {_TRUST + word: text for word, text in words.items()}
            elif name in ("score", *COMPONENTS):
                expected[_TRUST + name] = read_points(self._reader, mapping, name, "expect.trust") / HUNDREDTHS

    def _denial(self, expected: dict[str, Expected], expect: Mapping, node: Node) -> None:
        """`deny: REASON` is short for `verdict: deny` and `reason: REASON`."""
        for name in ("verdict", "reason"):
            if (beside := expect.get(name)) is not None:
                self._reader.fault(beside, f"`expect` has both `deny` and `{name}`", "remove one of the two")
        expected["verdict"] = Verdict.DENY.value
        self._word(expected, "reason", node, [str(reason) for reason in DENIAL_RESPONSES])

    def _word(self, expected: dict[str, Expected], name: str, node: Node, known: list[str]) -> None:
        text = self._reader.string(node, name)
        if text is not None and text not in known:
            near = get_close_matches(text, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"one of {', '.join(known)}"
            self._reader.fault(node, f"unknown {name} `{text}`", hint)
        elif text is not None:
            expected[name] = text

    def _text(self, expected: dict[str, Expected], name: str, node: Node) -> None:
        """`policy`, which has its namespace, or the audience of `mint`."""
        text = self._reader.string(node, name)
        if text is not None and name == "policy" and "/" not in text:
            self._reader.fault(node, f"`policy` is `{text}`, without its namespace", f"write `default/{text}`")
        elif text is not None:
            expected[name] = text

    def _rule(self, expected: dict[str, Expected], expect: Mapping, node: Node) -> None:
        which: Any = to_plain(node)
        named = isinstance(which, str) and which
        if not named and (type(which) is not int or which < 0):
            hint = "write its name, or its number: the first rule is 0"
            self._reader.fault(node, "`rule` is not the name or number of a rule", hint)
        elif expect.get("policy") is None:
            self._reader.fault(node, "`rule` requires `policy`", "add `policy`")
        else:
            expected["rule"] = which
