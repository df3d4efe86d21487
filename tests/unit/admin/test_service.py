from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest

from tests.fakes.snapshots import FRONTEND, HATSHOP, FixedSnapshot, hatshop
from tests.support.check_requests import check_request
from zta_authz import __version__
from zta_authz._proto import admin_pb2
from zta_authz.admin.service import SERVICE, AdminService
from zta_authz.admin.state import KeyKind, KeyStatus, Phase, ServiceState
from zta_authz.errors import Fault
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.model.facts import FactViews, NetworkFacts, known
from zta_authz.model.options import NamedWorkload, Options, Workload
from zta_authz.pdp.snapshot import SourceText, compile_snapshot

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip
    from zta_authz.pdp.snapshot import Snapshot


class Aborted(Exception):
    pass


class FakeContext:
    """The part of a gRPC context that handlers use."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Aborted(code, details)


def make_state(snapshot: Snapshot | None) -> ServiceState:
    keys = [KeyStatus(KeyKind.TRUST_BUNDLE, "cluster.local", 2, 90.0, 500.0), KeyStatus(KeyKind.JWKS, "iss", 1, 90.0)]
    state = ServiceState(FixedSnapshot(snapshot), lambda: 100.0, lambda _: keys)
    state.phase = Phase.SERVING
    state.started_at = 60.0
    state.loaded_at = 90.0
    return state


async def call(
    method: str, payload: bytes, snapshot: Snapshot | None = None, state: ServiceState | None = None
) -> bytes:
    service = AdminService(state or make_state(snapshot), parse_check_request)
    return await service.methods()[SERVICE][method](payload, FakeContext(), "")


async def explain(snapshot: Snapshot | None = None, **fields: Any) -> admin_pb2.ExplainResponse:
    payload = admin_pb2.ExplainRequest(**fields).SerializeToString()
    return admin_pb2.ExplainResponse.FromString(await call("Explain", payload, snapshot or hatshop()))


async def test_status_reports_what_is_in_force() -> None:
    snapshot = hatshop()
    state = make_state(snapshot)
    state.load_errors = (Fault("new.yaml", 3, 4, "wrong", "mend it"),)
    status = admin_pb2.GetStatusResponse.FromString(await call("GetStatus", b"", state=state))
    assert status == admin_pb2.GetStatusResponse(
        version=__version__,
        uptime_seconds=40.0,
        ready=True,
        table_digest=snapshot.digest,
        loaded_at_seconds=90.0,
        sources=["hatshop.yaml"],
        load_errors=[admin_pb2.Fault(source="new.yaml", line=3, column=4, message="wrong", hint="mend it")],
        keys=[
            admin_pb2.KeyMaterial(
                kind=admin_pb2.KeyMaterial.TRUST_BUNDLE,
                name="cluster.local",
                count=2,
                age_seconds=10.0,
                expires_at_seconds=500.0,
            ),
            admin_pb2.KeyMaterial(kind=admin_pb2.KeyMaterial.JWKS, name="iss", count=1, age_seconds=10.0),
        ],
    )


async def test_status_before_the_first_load_is_not_ready_and_has_no_digest() -> None:
    status = admin_pb2.GetStatusResponse.FromString(await call("GetStatus", b""))
    assert (status.ready, status.table_digest, list(status.keys)) == (False, "", [])


async def test_a_readable_request_is_decided_like_a_real_one() -> None:
    answer = await explain(request=admin_pb2.Request(method="GET", path="/hats", host="shop", principal=FRONTEND))
    assert (answer.allowed, answer.reason, answer.policy) == (True, "allow_policy", "default/hatshop-policy")
    assert answer.HasField("rule")
    assert answer.rule == 0
    assert answer.principal == FRONTEND


async def test_a_serialized_check_request_is_decided_like_a_real_one() -> None:
    answer = await explain(check_request=check_request(method="POST").SerializeToString())
    assert (answer.allowed, answer.policy) == (True, "default/hatshop-policy")


async def test_a_denial_reports_what_the_nearest_rule_lacked() -> None:
    answer = await explain(request=admin_pb2.Request(method="DELETE", path="/hats", host="shop", principal=FRONTEND))
    assert (answer.allowed, answer.reason, answer.policy) == (False, "no_matching_policy", "")
    assert not answer.HasField("rule")
    (miss,) = answer.nearest
    assert (miss.policy, miss.rule) == ("default/hatshop-policy", 0)
    assert "DELETE" in "".join(miss.failed)


async def test_a_request_is_decided_as_if_the_named_proxy_sent_it() -> None:
    shop, other = "spiffe://cluster.local/ns/default/sa/shop", "spiffe://cluster.local/ns/default/sa/other"
    options = Options(workloads=(NamedWorkload(shop, Workload(labels={"app": "hatshop"})),), trust_proxy=True)
    snapshot = compile_snapshot([SourceText("hatshop.yaml", HATSHOP)], options)
    fields = admin_pb2.Request(method="GET", path="/", host="shop", principal=FRONTEND, destination_principal=shop)
    assert (await explain(snapshot, request=fields, caller=shop)).allowed
    assert (await explain(snapshot, request=fields, caller=other)).reason == "caller_not_allowed"


async def test_header_names_of_a_readable_request_are_case_insensitive() -> None:
    text = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: by-header}
spec:
  rules:
  - when: [{key: "request.headers[x-team]", values: [blue]}]
"""
    fields = admin_pb2.Request(method="GET", path="/", host="shop")
    assert not (await explain(hatshop(text), request=fields)).allowed
    fields.headers.add(name="X-Team", value="blue")
    assert (await explain(hatshop(text), request=fields)).allowed


@pytest.mark.parametrize("method", ["GetStatus", "Explain"])
async def test_bytes_that_are_not_a_request_are_refused(method: str) -> None:
    with pytest.raises(Aborted) as caught:
        await call(method, b"\xff\xff", hatshop())
    assert caught.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_invalid_check_request_is_refused() -> None:
    with pytest.raises(Aborted) as caught:
        await explain(check_request=b"\xff")
    assert caught.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_nothing_can_be_explained_before_rules_are_loaded() -> None:
    with pytest.raises(Aborted) as caught:
        await call("Explain", admin_pb2.ExplainRequest().SerializeToString(), None)
    assert caught.value.args[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_text_that_is_not_utf8_is_replaced() -> None:
    message = check_request([("x-a", b"\xff")], method="GET", path="/").SerializeToString()
    assert (await explain(check_request=message)).allowed


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0, 1e300, 253_402_300_799.0])
async def test_a_time_outside_the_calendar_is_refused_and_not_an_internal_error(at: float) -> None:
    with pytest.raises(Aborted) as caught:
        await explain(request=admin_pb2.Request(method="GET"), at_seconds=at)
    assert caught.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (await explain(request=admin_pb2.Request(method="GET"), at_seconds=4e9)).reason


async def test_explanations_have_rule_names_and_conditions() -> None:
    text = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p}
spec:
  rules:
  - {name: reads, condition: "request.method == 'GET'"}
"""
    allowed = await explain(hatshop(text), request=admin_pb2.Request(method="GET", path="/", host="shop"))
    assert (allowed.policy, allowed.rule, allowed.rule_name) == ("default/p", 0, "reads")
    assert allowed.matched[0].startswith("condition: saw true: `request.method == 'GET'` is true")
    denied = await explain(hatshop(text), request=admin_pb2.Request(method="PUT", path="/", host="shop"))
    assert (denied.rule_name, denied.nearest[0].rule_name) == ("", "reads")


GERMANS = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: germans, namespace: default}
spec: {rules: [{require: {network: {countries: [DE]}}}]}
"""


class Germany:
    """Knows that every address is in Germany."""

    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        del address
        return NetworkFacts(country=known("DE", now - 60, "geo"))


@pytest.mark.parametrize(("views", "allowed"), [(FactViews(networks=Germany()), True), (FactViews(), False)])
async def test_a_request_is_decided_by_the_facts_in_force(views: FactViews, allowed: bool) -> None:
    state = make_state(compile_snapshot([SourceText("p.yaml", GERMANS)], Options()))
    state.views = lambda: views
    asked = admin_pb2.ExplainRequest(request=admin_pb2.Request(method="GET", path="/", source_ip="193.99.144.80"))
    answer = admin_pb2.ExplainResponse.FromString(await call("Explain", asked.SerializeToString(), state=state))
    assert answer.allowed is allowed
    shown = "network: country `DE`, observed 60 s ago, from geo; asn absent"
    assert any(line.startswith(shown) for line in answer.facts) is allowed
