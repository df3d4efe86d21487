"""Strict never allows a path, host or header in one spelling that a DENY policy denies in another an upstream may read.

Each request is read again as common servers and frameworks read it (decoded once and twice, `//` made one, dot segments
resolved, `;` parameters cut, methods written in upper case, and so on, in any order): where the reference evaluator of the rules denies what comes out, the
request as it came must not be allowed. Case counts in paths, as it does for Istio, and is not among the readings.
"""

from __future__ import annotations

import functools
from typing import Any

import yaml
from msgspec import structs

from tests.fuzz.oracle import HOST_READERS, spellings
from tests.fuzz.target import Target, text_of
from tests.property import reference_evaluator
from zta_authz.errors import Reason
from zta_authz.model.identity import ANONYMOUS
from zta_authz.model.options import Options
from zta_authz.model.request import NO_EVIDENCE, Headers, RequestAttributes
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

INVARIANT = "what a DENY policy denies in the spelling that an upstream may read is not allowed in any other spelling"

_RULES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin", "/admin/*", "*.secret", "/a/{*}/keys", "/vault/{**}", "/x y", "/caf\\u00e9"]}}]
  - to: [{operation: {hosts: ["secret.example.com", "*.internal", "[2001:db8::1]"]}}]
  - when: [{key: "request.headers[x-role]", values: ["admin", "root*"]}]
  - to: [{operation: {methods: ["DELETE"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow}
spec: {rules: [{}]}
"""


_REFUSALS = (
    Reason.DENY_POLICY, Reason.PATH_AMBIGUOUS, Reason.PATH_TOO_LONG, Reason.HOST_AMBIGUOUS, Reason.METHOD_AMBIGUOUS,
)  # fmt: skip


@functools.cache
def _in_force() -> tuple[Snapshot, list[dict[str, Any]]]:
    snapshot = compile_snapshot([SourceText("rules.yaml", _RULES)], Options())
    return snapshot, [document for document in yaml.safe_load_all(_RULES) if document["spec"].get("action") == "DENY"]


def check(data: bytes) -> None:
    """A method, path, host and header lines, each on a line; `!` before the method: repeats arrive joined."""
    lines = text_of(data).split("\n")
    method, path, host, *headers = [*lines, "", "", ""][: max(3, len(lines))]
    request = RequestAttributes(
        method=method.lstrip("!"), path=path, host=host, headers=_headers(headers, exact=not method.startswith("!"))
    )
    decision = evaluate(_in_force()[0], request, NO_EVIDENCE, 0.0)
    if decision.allowed:
        for other in _readings(request):
            assert not _denied(other), f"allowed, but an upstream may read {other}, which is denied"
    else:
        assert decision.reason in _REFUSALS


def _headers(lines: list[str], *, exact: bool) -> Headers:
    values: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name:
            values.setdefault(name.lower(), []).append(value)
    joined = values if exact else {name: [",".join(every)] for name, every in values.items()}
    return Headers({name: tuple(every) for name, every in joined.items()}, exact=exact)


def _denied(request: RequestAttributes) -> bool:
    verdict, place = reference_evaluator.decide(_in_force()[1], reference_evaluator.Case(request, ANONYMOUS, Options()))
    return verdict == "deny" and place is not None


def _readings(request: RequestAttributes) -> list[RequestAttributes]:
    found = [structs.replace(request, path=path) for path in spellings(request.path)]
    found += [structs.replace(request, host=host) for host in spellings(request.host, HOST_READERS)]
    found.append(structs.replace(request, method=request.method.strip().upper()))
    found += [structs.replace(request, headers=headers) for headers in _header_readings(request.headers)]
    return found


def _header_readings(headers: Headers) -> list[Headers]:
    """Values without the blanks around them (HTTP/2 carries them, HTTP/1 has none); what a proxy joined, taken apart."""
    values = {name: headers.all(name) for name in headers.names()}
    apart = values if headers.exact else {name: tuple(every[0].split(",")) for name, every in values.items()}
    trimmed = {name: tuple(value.strip(" \t") for value in every) for name, every in apart.items()}
    return [Headers(apart, exact=True), Headers(trimmed, exact=True)]


def seeds() -> dict[str, bytes]:
    """Spellings that are known to be read in several ways."""
    paths = (
        "/", "/orders", "/admin", "//admin", "/admin/", "/%61dmin", "/%2561dmin", "/x/../admin", "/./admin", "/x/%2e%2e/admin",
        "/admin;x=1", "/;/admin", "/admin%3bx", "/admin%00", "/admin%20", "\\admin", "/x\\..\\admin", "/%5cadmin", "admin",
        "/admin#x", "/admin?x", "/admin%3f", "/admin%23", "/x.secret", "/x.secret;a", "/a/b/keys", "/a/b%2fc/keys", "/vault/x",
        "/vault%2fx", "/%c0%afadmin", "/caf\u00e9", "/caf%c3%a9", "/x%20y", "/a//keys", "*", "", "/admin\t", "/..;/admin",
        "/x%", "/x%zz", "/%u0061dmin", "http://x/admin",
    )  # fmt: skip
    hosts = (
        "secret.example.com", "SECRET.example.com", "secret.example.com:443", "secret.example.com.", "x@secret.example.com",
        "secret.example.com:", "secret%2eexample.com", "secret.example.com..", "db.internal:80", "[2001:db8::1]:80",
        "secret.example.com,x", "secret.example.com:99999", "[2001:DB8::1]", "secret.example.com.:80", "s\u212a", " secret.example.com",
    )  # fmt: skip
    headers = (
        "x-role:admin",
        "x-role:user,admin",
        "x-role:user\nx-role:root",
        "X-Role: admin",
        "x-role:",
        "x-role:admin\t",
        "x-role:user, root",
    )
    methods = ("DELETE", "delete", "Delete", "DELETE ", "\u017f", "")
    return {
        **{f"path-{n}": f"GET\n{path}\nexample.com".encode() for n, path in enumerate(paths)},
        **{f"host-{n}": f"GET\n/\n{host}".encode() for n, host in enumerate(hosts)},
        **{f"header-{n}": f"GET\n/\nexample.com\n{lines}".encode() for n, lines in enumerate(headers)},
        **{f"joined-{n}": f"!GET\n/\nexample.com\n{lines}".encode() for n, lines in enumerate(headers)},
        **{f"method-{n}": f"{method}\n/\nexample.com".encode() for n, method in enumerate(methods)},
        "connect": b"CONNECT\n\nsecret.example.com:443",
    }


WORDS = (
    b"/admin", b"/vault/", b".secret", b"/a/x/keys", b"//", b"/./", b"/../", b"/..", b"%2e", b"%2E", b"%2f", b"%5c", b"\\",
    b"%25", b"%252e", b";", b"%3b", b"#", b"?", b"%3f", b"%23", b"%00", b"%20", b"%0a", b"%09", b"%c0%ae", b"%e0%80%af",
    b"%u002e", b"\xc0\xaf", b"\xe2\x84\xaa", b"\xef\xbc\x8f", b"secret.example.com", b".internal", b":80", b":", b".", b"@",
    b"[2001:db8::1]", b",", b"x-role:admin", b"x-role:root", b"%61", b"%7e", b"*", b"http://", b"CONNECT", b"OPTIONS", b"\x7f", b"delete",
)  # fmt: skip

TARGET = Target("ambiguity", INVARIANT, check, seeds, WORDS)
