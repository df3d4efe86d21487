"""Spans: the proxy's span is the parent; the client's is only linked and never causes sampling."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.check_requests import DECISION_ID, FRONTEND, allow, attributes, deny, identity
from tests.support.facts import FACTS
from tests.support.spans import RESOURCE, MemoryExporter
from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, DecisionFacts, Verdict
from zta_authz.model.request import Headers, RequestAttributes
from zta_authz.model.stages import Stages
from zta_authz.ports import CheckEvent
from zta_authz.telemetry.observer import build_observer
from zta_authz.telemetry.sampling import KEPT_PER_SECOND, Sampling
from zta_authz.telemetry.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from zta_authz.telemetry.sampling import Keep

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


def event(
    decision: Decision,
    request: RequestAttributes | None = None,
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> CheckEvent:
    return CheckEvent(metadata, request, decision, DECISION_ID, 1_000_000, 3_000_000)


def exported(*events: CheckEvent, ratio: float = 1.0, keep: Sequence[Keep] = ()) -> tuple[ReadableSpan, ...]:
    exporter = MemoryExporter()
    spans = Spans(exporter, RESOURCE, ratio, "1.2.3", keep)
    for call in events:
        stages = call.stages or Stages(time.time_ns, sampled=spans.sampling.samples(call.metadata))
        spans.record(msgspec.structs.replace(call, stages=stages))
    spans.close()
    return exporter.get_finished_spans()


def test_a_span_has_the_decision_and_the_principal() -> None:
    [span] = exported(event(allow(), attributes()))
    assert span.name == "envoy.service.auth.v3.Authorization/Check"
    assert span.kind is SpanKind.SERVER
    assert (span.start_time, span.end_time) == (1_000_000, 3_000_000)
    assert span.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "envoy.service.auth.v3.Authorization",
        "rpc.method": "Check",
        "http.request.method": "GET",
        "url.path": "/orders/7",
        "server.address": "orders",
        "server.port": 8080,
        "zta.verdict": "allow",
        "zta.reason": "allow_policy",
        "zta.policy": "default/hatshop-policy",
        "zta.rule": 0,
        "zta.principal": FRONTEND,
        "zta.decision_id": DECISION_ID,
    }
    assert dict(span.resource.attributes) == {"service.name": "zta-authz", "service.version": "1.2.3"}


def test_the_parent_is_the_span_in_the_call_metadata() -> None:
    metadata = (("user-agent", "envoy"), ("traceparent", SAMPLED), ("tracestate", "a=b"))
    [span] = exported(event(allow(), attributes(traceparent=UNSAMPLED), metadata), ratio=0.0)
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == TRACE == f"{span.context.trace_id:032x}"
    assert span.context.trace_state.to_header() == "a=b"
    assert span.parent.is_remote
    assert list(span.links) == []


def test_a_call_with_an_unsampled_parent_is_not_sampled() -> None:
    assert exported(event(allow(), attributes(), (("traceparent", UNSAMPLED),))) == ()


def test_the_clients_traceparent_is_linked_and_never_the_parent() -> None:
    [span] = exported(event(allow(), attributes(traceparent=SAMPLED)))
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE
    [link] = span.links
    assert f"{link.context.trace_id:032x}" == TRACE


def test_a_client_can_not_cause_sampling() -> None:
    assert exported(*[event(allow(), attributes(traceparent=SAMPLED))] * 20, ratio=0.0) == ()


@pytest.mark.parametrize("value", ["", "00-zz", b"\xff\xfe", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é"])
def test_an_invalid_traceparent_starts_a_new_trace(value: str | bytes) -> None:
    text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    [span] = exported(event(allow(), attributes(traceparent=text), (("traceparent", value),)))
    assert (span.parent, list(span.links)) == (None, [])


def staged(**times: int) -> Stages:
    stages = Stages(lambda: 0, sampled=True)
    for name, value in times.items():
        setattr(stages, name, value)
    return stages


def stage_events(stages: Stages) -> dict[str, tuple[int, dict[str, Any]]]:
    [span] = exported(msgspec.structs.replace(event(allow(), attributes()), stages=stages))
    return {event.name: (event.timestamp, dict(event.attributes or {})) for event in span.events}


def test_every_stage_that_was_reached_has_an_event_with_its_duration() -> None:
    times = staged(parsed=1_100_000, identified=1_300_000, decided=1_700_000, conditions=2, conditions_ns=300_000)
    assert stage_events(times) == {
        "zta.parse": (1_100_000, {"zta.duration_ns": 100_000}),
        "zta.identity": (1_300_000, {"zta.duration_ns": 200_000}),
        "zta.match": (1_700_000, {"zta.duration_ns": 400_000}),
        "zta.conditions": (1_700_000, {"zta.duration_ns": 300_000, "zta.conditions": 2}),
    }


def test_a_refused_identity_is_the_last_stage() -> None:
    assert list(stage_events(staged(parsed=1_100_000, decided=1_300_000))) == ["zta.parse", "zta.identity"]
    assert stage_events(staged()) == {}


@pytest.mark.parametrize(
    ("keep", "decision", "kept"),
    [
        ((), Decision(Verdict.DENY, Reason.INTERNAL_ERROR), False),
        (("errors",), Decision(Verdict.DENY, Reason.INTERNAL_ERROR), True),
        (("errors",), Decision(Verdict.DENY, Reason.AUDIT_UNAVAILABLE), True),
        (("errors",), deny(), False),
        (("denials",), deny(), True),
        (("denials", "errors"), allow(), False),
    ],
)
def test_denials_and_errors_are_kept_without_sampling_if_configured(
    keep: Sequence[Keep], decision: Decision, kept: bool
) -> None:
    metadata = (("traceparent", UNSAMPLED),)
    spans = exported(event(decision, attributes(), metadata), ratio=0.0, keep=keep)
    assert len(spans) == kept
    for span in spans:
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == f"{TRACE}-b7ad6b7169203331"


def test_a_flood_of_denials_does_not_become_a_flood_of_spans() -> None:
    keep: tuple[Keep, ...] = ("denials",)
    sampling = Sampling(0.0, keep)
    denials = [CheckEvent((), None, deny(), DECISION_ID, 0, second * 10**9) for second in (1, 2)]
    assert [sum(sampling.keeps(denial) for _ in range(KEPT_PER_SECOND + 7)) for denial in denials] == [
        KEPT_PER_SECOND
    ] * 2
    assert sampling.skipped == 14


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_without_a_parent_the_ratio_decides(ratio: float) -> None:
    sampling = Sampling(ratio, ())
    assert sum(sampling.samples(()) for _ in range(5000)) == pytest.approx(
        5000 * ratio, abs=150 if 0 < ratio < 1 else 0
    )


def test_only_an_internal_error_sets_the_error_status() -> None:
    denied, failed = exported(event(deny()), event(Decision(Verdict.DENY, Reason.INTERNAL_ERROR)))
    assert denied.status.status_code is StatusCode.UNSET
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "internal_error"


def test_no_header_value_query_or_detail_is_in_a_span() -> None:
    request = attributes(authorization="Bearer secret", cookie="secret")
    [span] = exported(event(deny(), request))
    values = {name: value for name, value in (span.attributes or {}).items() if name != "zta.policy"}
    assert "secret" not in str(values)


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("orders", "orders", None),
        ("orders:80", "orders", 80),
        ("[::1]:80", "[::1]", 80),
        ("[::1]", "[::1]", None),
        ("a:b", "a:b", None),
        ("a:", "a:", None),
        ("a:999999999", "a:999999999", None),
        ("", "", None),
    ],
)
def test_host_and_port_are_split(host: str, address: str, port: int | None) -> None:
    [span] = exported(event(allow(), RequestAttributes(method="BREW", host=host)))
    assert span.attributes is not None
    assert (span.attributes["server.address"], span.attributes.get("server.port")) == (address, port)
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_text_that_can_not_be_encoded_affects_no_other_span() -> None:
    decision = Decision(Verdict.DENY, Reason.DENY_POLICY, identity=identity("\udcff"))
    [span] = exported(event(decision, RequestAttributes(path="/\udcff", headers=Headers({}, exact=True))))
    assert span.attributes is not None
    assert span.attributes["zta.principal"] == "\\udcff"
    assert span.attributes["url.path"] == "/\\udcff"


def test_long_texts_are_cut() -> None:
    [span] = exported(event(allow(), RequestAttributes(path="/" + "a" * 100_000)))
    assert span.attributes is not None
    assert len(str(span.attributes["url.path"])) == 1024


@pytest.mark.parametrize("variable", ["OTEL_TRACES_SAMPLER", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
def test_the_environments_samplers_and_limits_change_no_span(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, {"OTEL_TRACES_SAMPLER": "always_off"}.get(variable, "1"))
    [span] = exported(event(allow(), attributes()))
    assert len(span.attributes or {}) == 13
    assert span.resource == RESOURCE


def test_an_unsampled_call_creates_no_sdk_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.telemetry.spans.ReadableSpan", None)
    assert exported(event(allow(), attributes()), ratio=0.0) == ()
    with pytest.raises(TypeError):
        exported(event(allow(), attributes()))


def test_without_an_exporter_no_span_is_created() -> None:
    observer = build_observer()
    observer.observe(event(allow(), attributes()))
    assert observer.traces is False
    observer.close()


@pytest.mark.parametrize("clients", [False, True])
@pytest.mark.parametrize(
    "state", ["s3cret", "a=s3cret\x7f,b=1", "s3cret" * 5000, ",".join(f"k{i}=s3cret" for i in range(40))]
)
def test_a_malformed_trace_state_is_not_logged(caplog: pytest.LogCaptureFixture, state: str, *, clients: bool) -> None:
    """The SDK would quote it for every call, so a client could flood the log and write arbitrary text into it."""
    metadata = () if clients else (("traceparent", SAMPLED), ("tracestate", state))
    request = attributes(traceparent=SAMPLED, tracestate=state) if clients else attributes()
    [span] = exported(event(allow(), request, metadata))
    assert dict(span.context.trace_state) == {}
    assert caplog.messages == []


def test_the_sdk_accepts_every_trace_state_that_the_parser_accepts() -> None:
    members = [*(f"k{number}=v {number}" for number in range(30)), f"{'a' * 241}@{'b' * 14}={'~' * 256}", "z*/-_=!"]
    [span] = exported(event(allow(), attributes(), (("traceparent", SAMPLED), ("tracestate", ",".join(members)))))
    assert span.context.trace_state.to_header() == ",".join(members)


def test_a_span_has_the_facts_that_rules_read() -> None:
    [span] = exported(event(msgspec.structs.replace(allow(), facts=FACTS)))
    assert span.attributes is not None
    facts = {name: value for name, value in span.attributes.items() if name.startswith(("zta.trust", "zta.device"))}
    assert facts == {"zta.trust.level": "MEDIUM", "zta.trust.score": 70.5, "zta.device.id": "laptop-1"}
    assert (span.attributes["zta.remote.country"], span.attributes["zta.resource.class"]) == ("DE", "internal")
    [bare] = exported(event(msgspec.structs.replace(allow(), facts=DecisionFacts())))
    assert bare.attributes is not None
    assert not [name for name in bare.attributes if name.startswith(("zta.trust", "zta.remote"))]
