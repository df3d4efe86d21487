"""Compare the cost of matching against 10 rules and against N rules, in alternation.

Each shape is one way in which rules can be similar. It has two requests: one that a rule decides, and one without a
match. The ratios are reliable, because noise affects both halves of a pair alike.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from zta_authz.model.identity import Identity, Peer, PeerTrust
from zta_authz.model.options import Options
from zta_authz.model.request import Headers, RequestAttributes
from zta_authz.model.spiffe import SpiffeId
from zta_authz.pdp.decide import combine
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.pdp.snapshot import Snapshot

TARGET_RATIO = 1.5
_FEW = 10
_RULES_A_POLICY = 500
_PAIRS = 31
_CALLS = 200
_NAME = "cluster.local/ns/default/sa/s{}"


class Request(NamedTuple):
    """The attributes that vary between the requests of a shape."""

    caller: int
    path: str = "/none"
    host: str = "none.example.com"
    tenant: str = "none"


class Shape(NamedTuple):
    """A shape of rules. `rule` writes rule number i; `decided` matches rule 7, `undecided` matches no rule."""

    rule: Callable[[int], str]
    decided: Request
    undecided: Request = Request(3_000_000)
    extra: str = ""


def _rule(**parts: str) -> str:
    lines = [f"{name}: {text}" for name, text in parts.items()]
    return "  - " + "\n    ".join(lines) + "\n"


def _from(number: int) -> str:
    return f'[{{source: {{principals: ["{_NAME.format(number)}"]}}}}]'


def _to(**fields: str) -> str:
    inner = ", ".join(f'{name}: ["{text}"]' for name, text in fields.items())
    return f"[{{operation: {{{inner}}}}}]"


def _header(number: int) -> str:
    return _rule(when=f'[{{key: "request.headers[x-tenant]", values: ["t{number}"]}}]')


def _negation(number: int) -> str:
    return _rule(
        **{"from": f'[{{source: {{notPrincipals: ["{_NAME.format(number)}", "{_NAME.format(0)}"]}}}}]'},
        to=f'[{{operation: {{notPaths: ["/x{number}", "/blocked"]}}}}]',
    )


def _policies(rules: list[str], action: str) -> str:
    documents = []
    for first in range(0, len(rules), _RULES_A_POLICY):
        head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        name = f"metadata: {{name: {action.lower()}-{first:07}}}\nspec:\n  action: {action}\n  rules:\n"
        documents.append(head + name + "".join(rules[first : first + _RULES_A_POLICY]))
    return "---\n".join(documents)


_DENY = "---\n" + _policies([_rule(**{"from": _from(i)}, to=_to(paths=f"/deny{i}/*")) for i in range(1000)], "DENY")
SHAPES: dict[str, Shape] = {
    "one path, principals differ": Shape(
        lambda i: _rule(**{"from": _from(i)}, to=_to(methods="GET", paths="/api")), Request(7, "/api")
    ),
    "one principal, paths differ": Shape(
        lambda i: _rule(**{"from": _from(0)}, to=_to(paths=f"/api/{i}")), Request(0, "/api/7"), Request(0)
    ),
    "prefix paths": Shape(lambda i: _rule(to=_to(paths=f"/api/{i}/*")), Request(0, "/api/7/a/b")),
    "suffix hosts": Shape(lambda i: _rule(to=_to(hosts=f"*.h{i}.example.com")), Request(0, "/", "a.h7.example.com")),
    "path templates": Shape(lambda i: _rule(to=_to(paths=f"/api/{{*}}/item{i}/{{**}}")), Request(0, "/api/v1/item7/a")),
    "negations, all hold": Shape(_negation, Request(9, "/free"), Request(0, "/free")),
    "negations, one fails for all": Shape(_negation, Request(9, "/free"), Request(9, "/blocked")),
    "header conditions": Shape(_header, Request(0, "/", "h", "t7")),
    "header conditions, 1,000 DENY beside": Shape(_header, Request(0, "/", "h", "t7"), extra=_DENY),
}


def _compile(shape: Shape, count: int) -> tuple[Snapshot, float]:
    """Compile `count` rules from YAML text. Returns the snapshot and the duration in seconds."""
    text = _policies([shape.rule(number) for number in range(count)], "ALLOW") + shape.extra
    gc.disable()  # as the loader does
    started = time.perf_counter()
    snapshot = compile_snapshot([SourceText("rules.yaml", text)], Options())
    seconds = time.perf_counter() - started
    gc.enable()
    gc.collect()
    gc.freeze()  # as the service does
    return snapshot, seconds


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def _cost_us(snapshot: Snapshot, request: RequestAttributes, identity: Identity) -> float:
    view = snapshot.table.default_view
    started = time.perf_counter()
    for _ in range(_CALLS):
        combine(view, Inputs(request, identity, snapshot.options), default_allow=False)
    return (time.perf_counter() - started) / _CALLS * 1e6


def measure(name: str, shape: Shape, count: int) -> list[dict[str, object]]:
    """Return one row for each request of the shape."""
    few, _ = _compile(shape, _FEW)
    before = _resident_mb()
    many, seconds = _compile(shape, count)
    grown = _resident_mb() - before
    rows: list[dict[str, object]] = []
    for label, query in (("decided", shape.decided), ("no match", shape.undecided)):
        spiffe_id = SpiffeId.parse(f"spiffe://{_NAME.format(query.caller)}")
        identity = Identity(Peer((str(spiffe_id),), spiffe_id, PeerTrust.CERTIFICATE))
        headers = Headers({"x-tenant": (query.tenant,), "accept": ("*/*",)}, exact=True)
        request = RequestAttributes(method="GET", path=query.path, host=query.host, headers=headers)
        pairs = [(_cost_us(few, request, identity), _cost_us(many, request, identity)) for _ in range(_PAIRS)]
        rows.append(
            {
                "shape": name,
                "request": label,
                "few_us": round(statistics.median(a for a, _ in pairs), 2),
                "many_us": round(statistics.median(b for _, b in pairs), 2),
                "ratio": round(statistics.median(b / a for a, b in pairs), 2),
                "load_s": round(seconds, 1),
                "table_mb": round(grown),
            }
        )
    gc.unfreeze()
    return rows


def main() -> int:
    """Print the table. Returns 1 if a ratio is above the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rules", type=int, default=100_000)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this shape (may be repeated)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    chosen = parser.parse_args()
    rows = []
    for name, shape in SHAPES.items():
        if not chosen.shape or name in chosen.shape:
            rows += measure(name, shape, chosen.rules)
    if chosen.output == "json":
        print(json.dumps({"rules": chosen.rules, "few": _FEW, "rows": rows}, indent=2))
    else:
        print(f"{'shape':38} {'request':9} {_FEW:>6} rules {chosen.rules:>8,} rules   ratio   load    table")
        for row in rows:
            print(
                f"{row['shape']:38} {row['request']:9} {row['few_us']:>9} us {row['many_us']:>11} us "
                f"{row['ratio']:>7} {row['load_s']:>5} s {row['table_mb']:>5} MB"
            )
    return int(any(float(str(row["ratio"])) > TARGET_RATIO for row in rows))


if __name__ == "__main__":
    sys.exit(main())
