"""Envoy's verdict and ours on the same request, side by side."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from tests.differential.case import Case
from tests.differential.envoy_config import TOKEN_HEADERS, output_headers
from tests.differential.envoy_runner import running
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.authorizer import finalize
from zta_authz.errors import DocumentErrors
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.model.claims import is_header_value
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.snapshot import SourceText, compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.differential.case import PolicySet, Request
    from tests.differential.envoy_runner import Envoy, Outcome
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot

_SETS_AT_ONCE = 12
_TOKEN_REFUSED = 401
REFUSED = "refused"
"""What stands for our reason where the documents do not load."""


@dataclass(frozen=True)
class Result:
    """One case with both answers. `ours` is None where there was nothing to decide or the documents do not load.

    `wrong_headers` are those set from tokens that the upstream would see otherwise of ours.
    """

    case: Case
    outcome: Outcome
    ours: bool | None
    reason: str
    detail: str
    wrong_headers: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether both said the same, or Envoy did not come to a verdict.

        Where Envoy's 401 speaks of a token, so must our reason. The other way it need not: Envoy says 403 of audiences.
        """
        if self.outcome.allowed is None:
            return True
        if self.outcome.status == _TOKEN_REFUSED and not self.reason.startswith(("token_", "peer_")):
            return False
        return self.outcome.allowed == self.ours and not self.wrong_headers

    @property
    def signature(self) -> tuple[bool | None, str]:
        """What kind of disagreement this is: two of one kind are likely one fault."""
        return self.outcome.allowed, self.reason


def load(policies: PolicySet) -> Snapshot:
    """Our reading of the set, whose placeholders are filled in. Raises `DocumentErrors`."""
    workload = Workload(
        policies.namespace, policies.labels, policies.trust_domain, tuple(policies.trust_domain_aliases)
    )
    options = replace(
        Options.istio(workload),
        use_remote_address=policies.proxy.use_remote_address,
        xff_num_trusted_hops=policies.proxy.xff_num_trusted_hops,
    )
    text = yaml.safe_dump_all(policies.documents, sort_keys=False)
    return compile_snapshot([SourceText("policies.yaml", text)], options)


async def compare(binary: Path, cases: Sequence[tuple[PolicySet, Sequence[Request]]]) -> list[list[Result]]:
    """The results of each set's requests, in order, all sets in one Envoy."""
    limit = asyncio.Semaphore(_SETS_AT_ONCE)

    async def one(envoy: Envoy, number: int) -> list[Result]:
        async with limit:
            policies, requests = cases[number]
            outcomes = await envoy.ask(number, requests)
            return _judge(policies, envoy.sets[number], requests, outcomes)

    async with running(binary, [policies for policies, _ in cases]) as envoy:
        return await asyncio.gather(*(one(envoy, number) for number in range(len(cases))))


def _judge(
    policies: PolicySet, filled: PolicySet, requests: Sequence[Request], outcomes: Sequence[Outcome]
) -> list[Result]:
    try:
        snapshot = load(filled)
    except DocumentErrors as errors:
        return [
            Result(Case(policies, request), outcome, None, REFUSED, str(errors))
            for request, outcome in zip(requests, outcomes, strict=True)
        ]
    results = []
    now = time.time()
    for request, outcome in zip(requests, outcomes, strict=True):
        case = Case(policies, request)
        if outcome.check is None:
            results.append(Result(case, outcome, None, "", ""))
            continue
        asked, evidence, *more = parse_check_request(outcome.check)
        decision = evaluate(snapshot, asked, evidence, *more, now)
        detail = f"{decision.policy} rule {decision.rule}: {decision.detail}"
        wrong: tuple[str, ...] = ()
        if outcome.allowed and decision.allowed:
            names = output_headers(filled) if len(decision.identity.tokens) < 2 else []
            wrong = _wrong_headers(names, asked, ResponseEncoder().encode(finalize(decision), "0" * 32, asked), outcome)
        reason = f"{decision.reason} {wrong}" if wrong else str(decision.reason)
        results.append(Result(case, outcome, decision.allowed, reason, detail, wrong))
    return results


def _wrong_headers(names: Sequence[str], asked: RequestAttributes, answer: bytes, outcome: Outcome) -> tuple[str, ...]:
    """Those of `names`, which the token sets, whose values differ, and headers whose token only one side takes out.

    Where nothing is set, clients' own are gone, too.
    """
    ok = CheckResponse.FromString(answer).ok_response
    ours = {option.header.key: option.header.value.encode().decode("latin-1") for option in ok.headers}
    wrong = [
        name
        for name in names
        if _meaning(ours.get(name, "")) != _meaning(outcome.seen.get(name, "")) and not _control_in(outcome, name)
    ]
    for name in TOKEN_HEADERS:
        goes_on = bool(asked.headers.all(name) and asked.headers.all(name)[0]) and name not in ok.headers_to_remove
        if goes_on != (name in outcome.seen):
            wrong.append(name)
    return tuple(wrong)


def _control_in(outcome: Outcome, name: str) -> bool:
    """Whether Envoy sent a control character, as we never do."""
    return not is_header_value(outcome.seen.get(name, "").encode("latin-1").decode("utf-8", "replace"))


def _meaning(value: str) -> Any:
    """The JSON that `value` is in base64, as the order of an object's members is Envoy's own; else the value."""
    if value.startswith(("W", "ey", "e3")):
        with contextlib.suppress(ValueError):
            return json.loads(base64.b64decode(value, validate=True), parse_int=float)
    return value
