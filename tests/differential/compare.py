"""Envoy's verdict and ours on the same request, side by side."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import yaml

from tests.differential.case import Case
from tests.differential.envoy_runner import running
from zta_authz.errors import DocumentErrors
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.decide import decide
from zta_authz.pdp.snapshot import SourceText, compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.differential.case import PolicySet, Request
    from tests.differential.envoy_runner import Envoy, Outcome
    from zta_authz.pdp.snapshot import Snapshot

_SETS_AT_ONCE = 12
REFUSED = "refused"
"""What stands for our reason where the documents do not load."""


@dataclass(frozen=True)
class Result:
    """One case with both answers. `ours` is None where there was nothing to decide or the documents do not load."""

    case: Case
    outcome: Outcome
    ours: bool | None
    reason: str
    detail: str

    @property
    def agrees(self) -> bool:
        """Whether both said the same, or Envoy did not come to a verdict."""
        return self.outcome.allowed is None or self.outcome.allowed == self.ours

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
        decision = decide(snapshot, *parse_check_request(outcome.check), now)
        detail = f"{decision.policy} rule {decision.rule}: {decision.detail}"
        results.append(Result(case, outcome, decision.allowed, str(decision.reason), detail))
    return results
