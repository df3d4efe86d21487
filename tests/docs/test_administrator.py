"""The page on the administrator's API and its OpenAPI description are compared with the code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import structs

from tests.docs.checks import ROOT
from zta_authz._proto import administrator_pb2 as pb
from zta_authz.access.lifecycle import GrantState, RequestState
from zta_authz.administrator.access_items import ApprovalItem, RequestItem
from zta_authz.administrator.json_bodies import grant_fields, held_fields, request_fields, revocation_fields
from zta_authz.administrator.operations import MAX_PAGE
from zta_authz.administrator.problems import KINDS
from zta_authz.administrator.rest_routes import ROUTES
from zta_authz.administrator.signals.changes import HeldItem
from zta_authz.administrator.view_items import GrantItem, RevocationItem, SignalItem, SubjectItem

if TYPE_CHECKING:
    from zta_authz.administrator.rest_routes import Route

API: dict[str, Any] = json.loads((ROOT / "docs" / "administrator-api.json").read_text(encoding="utf-8"))
SCHEMAS = API["components"]["schemas"]
PAGE = (ROOT / "docs" / "administrator.md").read_text(encoding="utf-8")
OPERATIONS = {
    (method.upper(), path): operation for path, item in API["paths"].items() for method, operation in item.items()
}
ANN = SubjectItem("https://login.example", "ann")
APPROVAL = ApprovalItem((ANN,), (0,), 1.0)
REQUEST = RequestItem("a", "a/b", (ANN,), 1, "", RequestState.REQUESTED, 1, 1, "", approvals=(APPROVAL,))
HELD = HeldItem("a", "a/b", "i", "j", "e", "tenant_wide", 1, 2, (SignalItem("a", "subject", "i", "s", "risk", "LOW", 1, "a/b", "j"),))  # fmt: skip
ANSWERS = {
    "AccessRequest": request_fields(REQUEST),
    "Approval": request_fields(REQUEST)["approvals"][0],
    "Subject": request_fields(REQUEST)["requester"],
    "Grant": grant_fields(GrantItem("a", "a/b", ANN, 1, 2)),
    "Revocation": revocation_fields(RevocationItem("a", "subject", "ann")),
    "HeldEvent": held_fields(HELD),
    "Signal": held_fields(HELD)["signals"][0],
}


def test_every_route_is_described_and_nothing_else() -> None:
    assert set(OPERATIONS) == {(route.method, route.path) for route in ROUTES}
    assert {operation["operationId"] for operation in OPERATIONS.values()} == set(
        pb.DESCRIPTOR.services_by_name["Operations"].methods_by_name
    )


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body], ids=lambda route: route.path)
def test_a_body_is_described_as_it_is_read(route: Route) -> None:
    assert route.body is not None
    reference = OPERATIONS[route.method, route.path]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference == f"#/components/schemas/{route.body.__name__}"
    schema, fields = SCHEMAS[route.body.__name__], structs.fields(route.body)
    assert list(schema["properties"]) == [field.name for field in fields]
    required = [field.name for field in fields if field.default is msgspec.NODEFAULT]
    assert (schema.get("required", []), schema["additionalProperties"]) == (required, False)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_described_as_it_is_written(name: str) -> None:
    assert list(SCHEMAS[name]["properties"]) == list(ANSWERS[name])


def test_reasons_states_and_limits_are_those_of_the_code() -> None:
    assert SCHEMAS["Problem"]["properties"]["reason"]["enum"] == list(map(str, KINDS))
    assert SCHEMAS["RequestState"]["enum"] == list(map(str, RequestState))
    assert SCHEMAS["GrantState"]["enum"] == list(map(str, GrantState))
    assert API["components"]["parameters"]["limit"]["schema"]["maximum"] == MAX_PAGE


def test_every_reference_leads_somewhere() -> None:
    for group, name in re.findall(r"#/components/(\w+)/(\w+)", json.dumps(API)):
        assert name in API["components"][group]


def test_the_page_has_every_reason_with_its_statuses() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows == [(str(reason), str(kind.status.value), kind.code) for reason, kind in KINDS.items()]


def test_the_page_has_every_path() -> None:
    rows = re.findall(r"^\| `(GET|POST) (/\S*?)` \| `(\w+)`", PAGE, re.MULTILINE)
    described = [(method, path, operation["operationId"]) for (method, path), operation in OPERATIONS.items()]
    assert sorted(rows) == sorted(described)
