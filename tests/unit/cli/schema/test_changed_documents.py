"""Changed documents: whatever the service accepts, the schema accepts; whatever only the service refuses is listed."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from jsonschema import Draft202012Validator

from tests.unit.cli.schema.documents import complete_documents, faults_of
from zta_authz.cli.policy_tests import KIND as POLICY_TEST
from zta_authz.cli.schema.catalogue import schema_for
from zta_authz.cli.schema.names import ALL, NAMES, REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Place = tuple[str | int, ...]
VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    7,
    -7,
    10**8,
    1.5,
    "",
    "x",
    "-/*",
    [],
    [""],
    [7],
    {},
    {"x": "y"},
    {"x": 7},
)
"""The values that take the place of each value of a document."""

SAME: Final = [("spec", "components", name) for name in ("device", "network", "behavior")]
"""Parts whose schema is the same as that of another part."""
NUMBERS: Final = (-101, -100, -1, 0, 1, 100, 101, 399, 400, 599, 600, 65535, 65536, 10**6, 10**6 + 1, 2**32 - 1, 2**32)
"""Besides `VALUES`, the values that take the place of a number: both sides of every limit."""
LIMIT: Final = 16
"""The limit of most lists of strings."""

ONLY_THE_SERVICE: Final[dict[str, tuple[str, ...]]] = {
    "AccessPolicy": (
        "is for denials, but this policy has action ALLOW",
        "`tokenDenials` alone changes no answer",
        "a policy with action DENY has no rules",
        "the policy has no rules, so `require` would do nothing",
        "every rule has its own `response`",
        "condition, line 1 column",
        "not an IP address or CIDR block",
        "a trust domain has no `/`",
        "unknown time zone",
        "a port is a decimal number from 0 to 65535",
        "there is no AccessEntitlement",
        "needs a `scope`",
    ),
    "TrustBundle": (
        "`jwtSvidAudiences` needs keys",
        r"key 1 of the key set (?:has no `kty`|is not a valid|has a `kid`)",
        "the SPIFFE bundle is not JSON",
        "contains no certificate",
    ),
    "TrustModel": (
        "does not say what it looks at",
        "has `most` without `count`",
        "condition line 1 column",
        "`levels` do not rise",
    ),
    "AccessEntitlement": ("the name can't be an entitlement's",),
    "AccessGrant": ("can't grant", "there is no AccessEntitlement"),
    "SignalSource": (
        "is not a Kubernetes name",
        "DeviceInventory `.*` *, which does not exist",
        "its `audience` must be known",
        "`issuer` is not a URL",
    ),
    "DeviceInventory": ("`acceptUnbound` without `tokenClaim`",),
    REQUEST: ("cannot be read", "is not an IP address", "has a value that no inventory would give it"),
    POLICY_TEST: ("a SPIFFE ID starts with", "there is no such file or directory", "the list contains a value twice"),
}
"""Faults of values and combinations that a schema can't describe, or describes less exactly. docs/schemas.md lists them."""


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        yield from places(below, (*at, name))


def made_at(document: Any, at: Place) -> Any:
    for step in at:
        document = document[step]
    return document


def changed(document: Any, at: Place) -> Iterator[tuple[str, Any]]:
    """The document with the value at `at` left out, under another name, and with other values."""

    def edited(edit: Any) -> Any:
        made = copy.deepcopy(document)
        parent = made
        for step in at[:-1]:
            parent = parent[step]
        edit(parent, at[-1])
        return made

    yield "left out", edited(lambda parent, name: parent.pop(name))
    if isinstance(at[-1], str):
        yield "renamed", edited(lambda parent, name: parent.update({f"{name}x": parent.pop(name)}))
    original = made_at(document, at)
    more = NUMBERS if type(original) is int else ()
    if isinstance(original, list) and original and isinstance(original[0], str):
        more = (original[:1] * LIMIT, original[:1] * (LIMIT + 1))
    for value in (*VALUES, *more):
        yield repr(value), edited(lambda parent, name, value=value: parent.__setitem__(name, value))


@pytest.mark.parametrize("name", [name for name in NAMES if name != ALL])
def test_the_schema_and_the_service_agree_on_every_change_of_a_document(name: str, tmp_path: Path) -> None:
    head = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: a, namespace: shop}\n"
    (tmp_path / "policies").write_text(f"{head}spec: {{}}\n", encoding="utf-8")
    validator = Draft202012Validator(schema_for(name))
    wrong: list[str] = []
    unused = set(ONLY_THE_SERVICE.get(name, ()))
    seen: set[str] = set()
    for number, original in enumerate(complete_documents(name)):
        for at in places(original):
            if (number and at[0] == "metadata") or at[:3] in SAME or any(map(_is_opposite, at)):
                continue
            for what, document in changed(original, at):
                key = f"{document}"
                if key in seen:
                    continue
                seen.add(key)
                faults, valid = faults_of(name, document, tmp_path), validator.is_valid(document)
                label = f"{'.'.join(map(str, at))} {what}"
                if not faults and not valid:
                    wrong.append(f"only the service accepts {label}")
                elif valid:
                    known = {fault: _known(name, fault) for fault in faults}
                    wrong += [f"only the service refuses {label}: {fault}" for fault in faults if not known[fault]]
                    unused.difference_update(*known.values())
    assert wrong == [], "\n".join(wrong)
    assert unused == set()


def _is_opposite(name: str | int) -> bool:
    """Whether the field is one like `notPaths`, whose schema is that of `paths`."""
    return isinstance(name, str) and re.match("not[A-Z]", name) is not None and name not in ("notBefore", "notValues")


def _known(name: str, fault: str) -> set[str]:
    return {pattern for pattern in ONLY_THE_SERVICE.get(name, ()) if re.search(pattern, fault)}
