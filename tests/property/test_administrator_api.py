"""Whatever a client sends, it is a call with arguments that make sense, or a refusal; never a failure of ours."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import given, strategies as st

from zta_authz._proto import administrator_pb2 as pb
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.grpc_api import SERVICE, GrpcApi
from zta_authz.administrator.operations import Origin
from zta_authz.administrator.problems import KINDS, ApiReason, CallRefused, problem_of
from zta_authz.administrator.rest_api import read_form, read_query
from zta_authz.administrator.rest_routes import ROUTES, RestCall

if TYPE_CHECKING:
    from zta_authz.administrator.rest_routes import Route

LATEST = 2.0**40
NAMES = sorted({name for route in ROUTES if route.body for name in route.body.__struct_fields__})
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["1h", "", "1e999", "NaN"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES, max_size=7).map(lambda body: json.dumps(body).encode()),
    VALUES.map(lambda body: json.dumps(body).encode("utf-8", "surrogatepass")),
)
METHODS = pb.DESCRIPTOR.services_by_name["Operations"].methods_by_name


class Judge:
    """Operations that check their arguments, and refuse everything."""

    def __getattr__(self, name: str) -> Any:
        async def operation(origin: Origin, *values: Any, **fields: Any) -> None:
            assert isinstance(origin, Origin)
            for value in (*values, *fields.values()):
                if isinstance(value, str):
                    value.encode()
                else:
                    assert type(value) in (int, float), name
                    assert math.isfinite(value), name
                    assert 0 <= value < LATEST, name
            raise OperationRefused(Refusal.NOT_FOUND, name)

        return operation


OPERATIONS: Any = Judge()


@given(st.sampled_from(ROUTES), BODIES, st.text(max_size=20), st.binary(max_size=60))
def test_any_http_call_is_made_or_refused(route: Route, data: bytes, item: str, query: bytes) -> None:
    async def run() -> None:
        pairs = read_query(query.decode("latin-1"))
        await route.handler(OPERATIONS, RestCall(Origin(), item.encode("ascii", "ignore").decode(), pairs, data))

    refused: Exception | None = None
    try:
        asyncio.run(run())
    except (OperationRefused, CallRefused) as error:
        refused = error
    assert refused is not None
    problem = problem_of(refused)
    assert problem.reason is not ApiReason.INTERNAL_ERROR
    json.dumps(problem.members(), ensure_ascii=False).encode()


@given(st.binary(max_size=200))
def test_any_form_is_read_or_refused(data: bytes) -> None:
    with suppress(CallRefused):
        assert all(name.encode() + value.encode() is not None for name, value in read_form(data).items())


@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=100), st.lists(st.binary(max_size=20), max_size=2))
def test_any_grpc_call_is_made_or_refused(method: str, payload: bytes, tokens: list[bytes]) -> None:
    aborted: list[str] = []

    async def abort(code: Any, details: str, metadata: Any) -> None:
        assert (code.name, details is not None) == (KINDS[_reason(dict(metadata)["zta-reason"])].code, True)
        aborted.append(dict(metadata)["zta-reason"])
        raise ConnectionError

    metadata = [("authorization", token.decode("latin-1")) for token in tokens]
    context = SimpleNamespace(invocation_metadata=lambda: metadata, abort=abort)

    async def run() -> None:
        await GrpcApi(OPERATIONS).methods()[SERVICE][method](payload, context, "")

    try:
        asyncio.run(run())
    except ConnectionError:
        assert aborted[0] in ("not_found", "malformed", "unauthenticated")


def _reason(text: str) -> Refusal | ApiReason:
    return next(reason for reason in KINDS if reason == text)
