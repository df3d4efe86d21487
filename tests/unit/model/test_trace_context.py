"""W3C Trace Context: valid parents and states are parsed, malformed ones are ignored."""

from __future__ import annotations

import logging

import pytest
from hypothesis import example, given, strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zta_authz.model.trace_context import (
    TraceParent,
    call_parent,
    call_state,
    parse_trace_parent,
    parse_trace_state,
)

TRACE, SPAN = "a1" * 16, "b2" * 8
ARABIC_ONE = "\u0661"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (VALID, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"01-{TRACE}-{SPAN}-01-later", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f" \t{VALID}\t ", True),
    ],
)
def test_a_valid_traceparent_is_accepted(text: str, *, sampled: bool) -> None:
    assert parse_trace_parent(text) == TraceParent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01more",
        f"{VALID}\n",
        f"\n{VALID}",
        f"01-{TRACE}-{SPAN}-01-\n",
        f"{VALID},{VALID}",
        f"01-{TRACE}-{SPAN}-01-{'x' * 500}",
        f"00-{'à' * 32}-{SPAN}-01",
        f"00-{ARABIC_ONE * 32}-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_is_ignored(text: str) -> None:
    assert parse_trace_parent(text) is None


@pytest.mark.parametrize(
    ("metadata", "parent"),
    [
        ([("x", "y"), ("traceparent", VALID)], TraceParent(TRACE, SPAN, sampled=True)),
        ([], None),
        ([("traceparent", VALID), ("traceparent", VALID)], None),
        ([("traceparent", "nonsense"), ("traceparent", VALID)], None),
        ([("traceparent", VALID.encode())], None),
    ],
)
def test_a_repeated_traceparent_is_ignored(metadata: list[tuple[str, str | bytes]], parent: TraceParent | None) -> None:
    assert call_parent(metadata) == parent


@pytest.mark.parametrize(
    ("values", "state"),
    [
        (["a=b"], "a=b"),
        (["a=b", "c=d"], "a=b,c=d"),
        ([" a=b ,\t,c=d,"], "a=b,c=d"),
        (["t1@vendor=x y"], "t1@vendor=x y"),
        ([], ""),
        (["a=b,nonsense"], ""),
        (["a=b,a=c"], ""),
        (["a=b\x7f"], ""),
        (["a=bé"], ""),
        (["A=b"], ""),
        (["a=" + "b" * 257], ""),
        ([",".join(f"k{number}=v" for number in range(32))], ",".join(f"k{number}=v" for number in range(32))),
        ([",".join(f"k{number}=v" for number in range(33))], ""),
        (["a=b" + "," * 8190], ""),
    ],
)
def test_a_tracestate_is_accepted_completely_or_not_at_all(values: list[str], state: str) -> None:
    assert parse_trace_state(values) == state
    assert call_state([("tracestate", value) for value in values] + [("tracestate", b"x")]) == state


pieces = st.sampled_from(
    ["00", "01", "ff", TRACE, SPAN, "0" * 32, "-", "\n", " ", "\t", "01", "é", "-x", "a=b", ",", "A"]
)


@given(st.lists(pieces, max_size=9).map("".join), st.lists(pieces, max_size=9).map("".join))
@example(VALID, "a=b,c=d")
@example(f"{VALID}\n", "")
def test_opentelemetrys_own_parser_agrees(parent: str, state: str) -> None:
    """Except for a trailing line feed, which its regular expression accepts."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    parsed = parse_trace_parent(parent)
    expected = sdk_context(parent, state)
    if "\n" not in parent:
        assert (parsed is not None) == expected.is_valid
    if parsed is not None:
        assert (int(parsed.trace_id, 16), int(parsed.span_id, 16)) == (expected.trace_id, expected.span_id)
        assert parsed.sampled == expected.trace_flags.sampled
        assert parse_trace_state([state]) == ",".join(f"{key}={value}" for key, value in expected.trace_state.items())


def sdk_context(parent: str, state: str) -> SpanContext:
    carrier = {"traceparent": parent, "tracestate": state}
    return get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()
