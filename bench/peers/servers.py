"""Start the compared servers, and verify that each decides as the policy requires."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from bench import scenario
from bench.peers import install, policy
from bench.peers.names import EMPTY, FAST, GO, GRPCIO, OPA_ENVOY, OPA_KEYED, OPA_LIST, OPA_RULES, OPA_UNCACHED
from bench.peers.paced import ALLOWED_CHECK
from bench.peers.process import cpu_seconds
from envoy.demo.processes import Child, wait_until
from zta_authz._proto.ext_authz_pb2 import CheckRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
_WARM_SECONDS: Final = 0.7
_NULL: Final = Path(os.devnull)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: `command` starts it on a socket; `decides`: not the empty one; `tokens`: it verifies them.

    `log_on_stderr`: its decision log goes there, and is thrown away as that of the others.
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    decides: bool = True
    tokens: bool = False
    log_on_stderr: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A started server."""

    peer: Peer
    socket: Path
    child: Child


@dataclass(frozen=True, slots=True)
class Trial:
    """The scenario's request, and the peers with its policy set."""

    case: str
    rules: int
    request: bytes
    peers: tuple[Peer, ...]


def prepare(case: str, rules: int, directory: Path, names: Sequence[str]) -> Trial:
    """Write the policy set in every language below `directory`. Returns the named peers that are installed."""
    made = scenario.build(case, rules, directory, "fast")
    policies = policy.read(directory / "policies" / "policies.yaml")
    (directory / "go-rules.json").write_text(policy.to_go(policies))
    for form in policy.FORMS:
        module, data = policy.to_rego(policies, form)
        (directory / f"{form}.rego").write_text(module)
        (directory / f"{form}.json").write_text(data)
    peers = [peer for peer in _peers(case, directory, made.config) if peer.name in names]
    return Trial(case, rules, joined_headers(made.request), tuple(peers))


def joined_headers(request: bytes) -> bytes:
    """Convert the CheckRequest to `encode_raw_headers: false`, because OPA-Envoy does not read raw headers."""
    message = CheckRequest.FromString(request)
    http = message.attributes.request.http
    for header in http.header_map.headers:
        http.headers[header.key] = header.raw_value.decode()
    http.ClearField("header_map")
    return message.SerializeToString(deterministic=True)


def _peers(case: str, directory: Path, config: Path) -> list[Peer]:
    def zta(server: str) -> Callable[[Path], Sequence[str]]:
        def command(socket: Path) -> Sequence[str]:
            settings = json.loads(config.read_text()) | {"server": server, "listen": [f"unix:{socket}"]}
            settings["tracing"] = {"otlp": {"endpoint": "http://127.0.0.1:4317"}, "sample_ratio": 0.0}
            own = directory / f"{server}.yaml"
            own.write_text(json.dumps(settings))
            return [sys.executable, "-m", "zta_authz", "serve", "--config", str(own)]

        return command

    tokens = case == "token"
    peers = [
        Peer(EMPTY, lambda socket: [sys.executable, "-m", "bench.empty_server", str(socket)], decides=False),
        Peer(FAST, zta("fast"), tokens=tokens),
        Peer(GRPCIO, zta("grpcio"), tokens=tokens),
    ]
    installed = install.installed()
    go, opa, opa_envoy = (installed[name].path for name in ("goauthz", "opaauthz", "opa-envoy-plugin"))
    if go:
        peers.append(Peer(GO, lambda socket: [str(go), str(socket), str(directory / "go-rules.json")]))
    if opa:
        peers += [_opa(opa, form, name, directory, tokens=tokens) for form, name in OPA_FORMS.items()]
        if tokens:
            peers.append(_opa(opa, "rules", OPA_UNCACHED, directory, "--no-token-cache", tokens=True))
    if opa_envoy:
        peers.append(
            Peer(OPA_ENVOY, lambda socket: _opa_envoy(opa_envoy, directory, socket), tokens=tokens, log_on_stderr=True)
        )
    return peers


OPA_FORMS: Final = {"rules": OPA_RULES, "list": OPA_LIST, "keyed": OPA_KEYED}


def _opa(program: Path, form: str, name: str, directory: Path, *options: str, tokens: bool) -> Peer:
    files = [str(directory / f"{form}.rego"), str(directory / f"{form}.json")]
    return Peer(name, lambda socket: [str(program), str(socket), *files, *options], tokens=tokens)


def _opa_envoy(program: Path, directory: Path, socket: Path) -> list[str]:
    """Return the command of OPA-Envoy's server with a decision log and a cache of verified tokens."""
    plugin = "plugins.envoy_ext_authz_grpc"
    kept = "caching.inter_query_builtin_value_cache.named.io_jwt.max_num_entries=1024"
    options = (f"{plugin}.addr=unix://{socket}", f"{plugin}.path=authz/allow", "decision_logs.console=true", kept)
    flags = [part for option in options for part in ("--set", option)]
    files = [str(directory / "rules.rego"), str(directory / "rules.json")]
    return [str(program), "run", "--server", "--addr=127.0.0.1:0", "--log-level=info", *flags, *files]


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Bind children that are started in this context to one CPU, on which Go starts only one worker thread."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def started(peers: Sequence[Peer], directory: Path, cpu: int) -> Iterator[list[Running]]:
    """Start one process per peer on `cpu`; yields when all listen and stops them at the end."""
    running: list[Running] = []
    try:
        for number, peer in enumerate(peers):
            socket = directory / f"{number}.sock"
            with on_cpu(cpu):
                stderr = _NULL if peer.log_on_stderr else directory / f"{number}.log"
                child = Child(peer.name, peer.command(socket), stdout=_NULL, stderr=stderr)
            running.append(Running(peer, socket, child))
            wait_until(socket.exists, child, seconds=180)
        yield running
    finally:
        for server in running:
            server.child.stop()


def verify(running: Running, trial: Trial) -> float:
    """Verify the decisions and return the CPU seconds of a warm call. Raises SystemExit if a decision is wrong."""
    with grpc.insecure_channel(f"unix:{running.socket}") as channel:
        call: Callable[..., bytes] = channel.unary_unary(_METHOD)
        for what, request, allowed in _questions(running.peer, trial):
            answer = call(request, timeout=10, wait_for_ready=True)
            if answer.startswith(ALLOWED_CHECK) != allowed:
                raise SystemExit(f"{running.peer.name} decides wrongly ({trial.case}, {trial.rules} rules): {what}")
        until, calls, cpu = time.monotonic() + _WARM_SECONDS, 0, cpu_seconds(running.child.pid)
        while time.monotonic() < until:
            call(trial.request, timeout=10)  # caches fill
            calls += 1
        return (cpu_seconds(running.child.pid) - cpu) / calls


def _questions(peer: Peer, trial: Trial) -> Iterator[tuple[str, bytes, bool]]:
    """Yield variations of the scenario's request, and whether the policy allows them."""

    def changed(change: Callable[[CheckRequest], object]) -> bytes:
        request = CheckRequest.FromString(trial.request)
        change(request)
        agree(request)
        return request.SerializeToString()

    def team(number: int, path: str) -> bytes:
        def change(request: CheckRequest) -> None:
            request.attributes.source.principal = f"spiffe://cluster.local/ns/team-{number}/sa/worker"
            request.attributes.request.http.path = path

        return changed(change)

    yield "the scenario's request", trial.request, True
    if not peer.decides:
        return
    yield "another method", changed(lambda r: setattr(r.attributes.request.http, "method", "POST")), False
    yield "another path", changed(lambda r: setattr(r.attributes.request.http, "path", "/else")), False
    if trial.case == "principal":  # otherwise the certificate identifies the caller
        yield "another caller", team(7, "/orders/7"), False
        yield "another caller's prefix", team(7, "/team-7/x?y=z"), True
        yield "another caller's exact path", team(7, "/v7/orders"), True
        yield "a DENY rule's caller", team(5, "/team-5/x"), False
    if peer.tokens:
        yield "a token with a broken signature", changed(_break_token), False


def agree(request: CheckRequest) -> None:
    """Set the pseudo headers to the values of the attributes, as Envoy does."""
    http = request.attributes.request.http
    headers = {":method": http.method, ":path": http.path}
    for name, value in headers.items():
        if name in http.headers:
            http.headers[name] = value
    for header in http.header_map.headers:
        if header.key in headers:
            header.raw_value = headers[header.key].encode()


def _break_token(request: CheckRequest) -> None:
    """Break the token in each field of the request that has it. Raises SystemExit if no field has one."""
    http = request.attributes.request.http
    broken = 0
    if "authorization" in http.headers:
        http.headers["authorization"] = _broken(http.headers["authorization"])
        broken += 1
    for header in http.header_map.headers:
        if header.key == "authorization":
            header.raw_value = _broken(header.raw_value.decode()).encode()
            broken += 1
    if not broken:
        raise SystemExit("the request has no token whose signature could be broken")


def _broken(token: str) -> str:
    return token[:-20] + ("A" if token[-20] != "A" else "B") + token[-19:]
