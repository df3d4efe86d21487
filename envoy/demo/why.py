"""Explains rows of the demo as `zta-authz explain` does, and writes their requests to files for that command."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import yaml

from envoy.demo.identities import spiffe_id, write_private
from envoy.demo.story import FORWARDED_FOR
from zta_authz.cli.policy_evaluator import PolicyEvaluator
from zta_authz.cli.request_files import load_request
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from envoy.demo.identities import Layout
    from envoy.demo.story import Row
    from zta_authz.pdp.explain import Explanation

_DIRECTORY = "requests"
_ENVOY = "127.0.0.1"
"""The address from which the story connects. Envoy appends it to X-Forwarded-For."""


def request_file(layout: Layout, row: Row) -> Path:
    """Return the path of the request of `row`, as `zta-authz explain --request` reads it."""
    return layout.root / _DIRECTORY / f"{row.what.replace(' ', '-').replace(',', '')}.yaml"


def write_request(layout: Layout, row: Row) -> Path:
    """Write the request of `row` as Envoy sends it to zta-authz: with certificate and token, so only for its owner."""
    request = row.full_request(layout)
    headers = dict(request.headers)
    headers[FORWARDED_FOR] = f"{headers[FORWARDED_FOR]},{_ENVOY}" if FORWARDED_FOR in headers else _ENVOY
    fields = {"method": request.method, "path": request.path, "headers": headers, "source": {"ip": _ENVOY}}
    if row.peer is not None:
        fields |= {"principal": spiffe_id(row.peer), "certificate": str(layout.certificate(row.peer))}
    file = request_file(layout, row)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.unlink(missing_ok=True)
    write_private(file, yaml.safe_dump(fields, sort_keys=False).encode())
    return file


def explanations(layout: Layout, config: Path, rows: Iterable[Row]) -> list[tuple[Row, Explanation]]:
    """Explain `rows` by the policies and facts that the settings file `config` names. Writes their request files."""
    settings = load_settings(str(config), {})
    evaluator = PolicyEvaluator(settings.policies, settings.options(), settings)
    files = [(row, write_request(layout, row)) for row in rows]
    now = time.time()
    return [(row, evaluator.explain(load_request(str(file), binary=False), now)) for row, file in files]


def why(explanation: Explanation) -> str:
    """Return in one line why the request was denied: the detail, or what the nearest ALLOW rule requires beyond it."""
    decision = explanation.decision
    if decision.detail:
        return decision.detail
    missed = [miss.failed for miss in explanation.nearest if all(part.startswith("require.") for part in miss.failed)]
    return "; ".join(missed[0]) if missed else ""
