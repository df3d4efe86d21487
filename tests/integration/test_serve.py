from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_health.v1 import health_pb2

from tests.fakes.snapshots import HATSHOP
from tests.support.check_requests import FRONTEND, check_request
from tests.support.pki import pem, private_key, root
from tests.support.service import RunningService, run_cli
from zta_authz import __version__
from zta_authz._proto import admin_pb2
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.cli import main

CHECK = "/envoy.service.auth.v3.Authorization/Check"
HEALTH = "/grpc.health.v1.Health/Check"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ADMIN = "/zta.admin.v1.Admin/"


class Place:
    """A directory with settings and policies of a service, and its sockets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "settings.yaml"
        self.policies = directory / "policies"
        self.policies.mkdir()
        self.write_policy(HATSHOP)
        self.write_config()

    def write_policy(self, text: str) -> None:
        (self.policies / "hatshop.yaml").write_text(text)

    def write_config(self, more: str = "") -> None:
        self.config.write_text(
            f'listen: ["unix:{self.socket}", "127.0.0.1:0"]\n'
            f"policies: [{self.policies}]\n"
            "workload: {labels: {app: hatshop}}\n"
            "peer: {trust_proxy: true}\n"
            'health: {listen: "127.0.0.1:0"}\n'
            f'admin: {{listen: "unix:{self.directory}/admin.sock"}}\n'
            f"{more}"
        )

    @property
    def socket(self) -> Path:
        return self.directory / "authz.sock"

    def left(self) -> set[str]:
        return {file.name for file in self.directory.iterdir()} - {"settings.yaml", "policies"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def call(target: str, method: str, payload: bytes) -> bytes:
    async def ask() -> bytes:
        async with grpc.aio.insecure_channel(target) as channel:
            answer: bytes = await channel.unary_unary(method)(payload, timeout=5)
            return answer

    return asyncio.run(ask())


def check(target: str, method: str = "GET") -> CheckResponse:
    return CheckResponse.FromString(call(target, CHECK, check_request(method=method).SerializeToString()))


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_serves_checks_health_status_and_metrics_until_sigterm_and_leaves_nothing(place: Place) -> None:
    with RunningService(place.config) as service:
        said = service.wait_for("serving")
        targets = [address for address in said["listen"] if "admin" not in address]
        assert len(targets) == 2
        for target in targets:
            allowed, denied = check(target), check(target, "DELETE")
            assert allowed.status.code == 0
            assert allowed.HasField("ok_response")
            assert denied.denied_response.status.code == 403
            health = health_pb2.HealthCheckResponse.FromString(call(target, HEALTH, b""))
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert get(said["health"], "/readyz")[0] == 200
        metrics = get(said["health"], "/metrics")[1]
        assert 'zta_decisions_total{reason="allow_policy",verdict="allow"} 2.0' in metrics
        for quiet in ("zta_observer_errors_total", "zta_internal_errors_total", "zta_audit_dropped_total"):
            assert f"{quiet} 0.0" in metrics
        assert "zta_audit_queue_records " in metrics
        service.signal(signal.SIGTERM)
        status, out, _ = service.wait()
    assert status == 0
    assert place.left() == set()
    verdicts = [json.loads(line)["verdict"] for line in out.splitlines()]
    assert verdicts == ["allow", "deny", "allow", "deny"]


def test_status_shows_what_is_in_force_and_what_was_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    socket = f"unix:{place.directory}/admin.sock"
    with RunningService(place.config) as service:
        digest = service.wait_for("serving")["table_digest"]
        assert main(["status", "--config", str(place.config), "--output", "json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        (status,) = answer["services"]
        assert (answer["kind"], status["address"], status["digest"]) == ("Status", socket, digest)
        assert (status["ready"], status["version"], status["loadErrors"]) == (True, __version__, [])
        page = (Path(__file__).resolve().parents[2] / "docs" / "admin.md").read_text(encoding="utf-8")
        (documented,) = json.loads(page.partition("```json")[2].partition("```")[0])["services"]
        assert list(status) == list(documented)
        (place.directory / "policies" / "wrong.yaml").write_text("kind: x\n")
        service.wait_for("policy_reload_failed")
        assert main(["status", "--admin", socket]) == 1
        shown = capsys.readouterr().out
        assert shown.startswith(f"{socket}  ready\n")
        assert digest[:12] in shown
        assert "REFUSED   " in shown
        assert "wrong.yaml:1:1: " in shown


def test_the_admin_api_tells_status_and_explains(place: Place) -> None:
    target = f"unix:{place.directory}/admin.sock"
    with RunningService(place.config) as service:
        digest = service.wait_for("serving")["table_digest"]
        status = admin_pb2.GetStatusResponse.FromString(call(target, ADMIN + "GetStatus", b""))
        assert (status.ready, status.table_digest, status.version) == (True, digest, __version__)
        asked = admin_pb2.Request(method="DELETE", path="/", host="shop", principal=FRONTEND)
        payload = admin_pb2.ExplainRequest(request=asked).SerializeToString()
        answer = admin_pb2.ExplainResponse.FromString(call(target, ADMIN + "Explain", payload))
        assert not answer.allowed
        assert answer.nearest[0].policy == "default/hatshop-policy"
        with pytest.raises(grpc.aio.AioRpcError):
            check(target)
        with pytest.raises(grpc.aio.AioRpcError):
            call(f"unix:{place.socket}", ADMIN + "GetStatus", b"")


def test_sigint_ends_it_as_well(place: Place) -> None:
    with RunningService(place.config) as service:
        service.wait_for("serving")
        service.signal(signal.SIGINT)
        assert service.wait()[0] == 0


def test_sockets_get_the_mode_of_the_settings(place: Place) -> None:
    place.write_config('socket: {mode: "0600"}\n')
    with RunningService(place.config) as service:
        service.wait_for("serving")
        assert stat.S_IMODE(place.socket.lstat().st_mode) == 0o600


def test_a_second_server_is_refused_with_status_2_and_the_first_goes_on(place: Place) -> None:
    with RunningService(place.config) as first:
        first.wait_for("serving")
        second = run_cli("serve", "--config", str(place.config))
        assert second.returncode == 2
        assert f"listener unix:{place.socket}: another server holds this socket" in second.stderr
        assert check(f"unix:{place.socket}").HasField("ok_response")


def test_the_socket_of_a_killed_server_is_taken_over(place: Place) -> None:
    with RunningService(place.config) as first:
        first.wait_for("serving")
        first.signal(signal.SIGKILL)
        first.wait()
    assert place.socket.is_socket()
    with RunningService(place.config) as second:
        second.wait_for("serving")
        assert check(f"unix:{place.socket}").HasField("ok_response")


def test_the_environment_wins(place: Place) -> None:
    other = place.directory / "other.sock"
    with RunningService(place.config, ZTA_LISTEN=f"unix:{other}", ZTA_ADMIN__LISTEN="") as service:
        assert service.wait_for("serving")["listen"] == [f"unix:{other}"]


def test_text_logs_are_for_people(place: Place) -> None:
    place.write_config("log: {format: text, level: debug}\n")
    with RunningService(place.config) as service:
        for _ in range(100):
            if place.socket.exists():
                break
            time.sleep(0.1)
        service.signal(signal.SIGTERM)
        status, _, err = service.wait()
    assert status == 0
    assert " INFO zta_authz.service.app: serving" in err


def test_wrong_settings_end_it_with_status_2_and_a_line_for_each_fault(place: Place) -> None:
    place.write_config("semantics: lax\npolicis: []\n")
    ended = run_cli("serve", "--config", str(place.config), variables={"ZTA_LISTENN": "x"})
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        f"{place.config}:7:12:",
        f"{place.config}:8:1:",
        "environment",
    ]
    assert place.left() == set()


def test_wrong_policies_end_it_with_status_2_before_anything_listens(place: Place) -> None:
    place.write_policy(HATSHOP.replace("methods", "mehtods"))
    (place.policies / "worse.yaml").write_text("kind: [\n")
    ended = run_cli("serve", "--config", str(place.config))
    assert ended.returncode == 2
    assert f"{place.policies}/hatshop.yaml:9:23: unknown field `mehtods`" in ended.stderr
    assert f"{place.policies}/worse.yaml:2:" in ended.stderr
    assert place.left() == set()


def test_faults_of_policies_and_certificates_are_reported_together(place: Place) -> None:
    place.write_policy("kind: [\n")
    place.write_config(
        "tls: {cert_file: /none/c, key_file: /none/k, client_ca_file: /none/a, "
        "allowed_spiffe_ids: [spiffe://cluster.local/envoy]}\n"
    )
    ended = run_cli("serve", "--config", str(place.config))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 4


def test_all_that_keeps_it_from_starting_is_told_at_once_and_leaves_nothing(place: Place) -> None:
    place.write_policy("kind: [\n")
    place.write_config(
        "audit: {sink: file, path: /none/a.log, checkpoint: {path: /none/c, key_file: /none/k},\n"
        "  mask: [{field: path, how: hash}], mask_key_file: /none/m}\n"
        "tracing: {otlp_endpoint: 'https://localhost:1', headers_file: /none/h, ca_file: /none/ca}\n"
        "metrics: {otlp: {endpoint: 'https://localhost:1', cert_file: /none/c1, key_file: /none/k1}}\n"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        variables = {"ZTA_LISTEN": f"unix:/none/b.sock,{address}", "ZTA_ADMIN__LISTEN": "unix:/none/admin.sock"}
        ended = run_cli("serve", "--config", str(place.config), variables=variables)
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    places = ("/none/a.log", "/none/c", "/none/k", "/none/m", "/none/h", "/none/ca", "/none/c1", "/none/k1")
    for where in (*places, "listener unix:/none/b.sock", f"listener {address}", "listener unix:/none/admin.sock"):
        assert [line for line in lines if line.startswith(f"{where}: ")], (where, lines)
    assert [line for line in lines if "hatshop.yaml:" in line]
    assert place.left() == set()


def test_a_decision_log_that_can_not_be_opened_ends_it_with_status_2(place: Place) -> None:
    place.write_config("audit: {sink: file, path: /none/decisions.log}\n")
    ended = run_cli("serve", "--config", str(place.config))
    assert (ended.returncode, "/none/decisions.log: cannot be written" in ended.stderr) == (2, True)


def test_every_address_that_can_not_be_had_is_reported(place: Place) -> None:
    place.write_config()
    missing = "unix:/none/a.sock,unix:/none/b.sock"
    ended = run_cli("serve", "--config", str(place.config), variables={"ZTA_LISTEN": missing})
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 2
    assert place.left() == set()


def test_a_second_signal_ends_the_drain_at_once(place: Place) -> None:
    place.write_config("drain_seconds: 60\nserver: grpcio\n")  # only it serves Watch, a stream that stays open
    with RunningService(place.config) as service:
        target = next(address for address in service.wait_for("serving")["listen"] if "127" in address)
        with grpc.insecure_channel(target) as channel:
            watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
            next(watching)  # a stream that stays open holds the drain up
            service.signal(signal.SIGTERM)
            service.wait_for("draining")
            assert health_pb2.HealthCheckResponse.FromString(next(watching)).status == NOT_SERVING
            started = time.monotonic()
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0
            assert time.monotonic() - started < 20


def test_while_it_drains_it_is_not_ready(place: Place) -> None:
    place.write_config("drain_seconds: 60\nserver: grpcio\n")  # only it serves Watch, a stream that stays open
    with RunningService(place.config) as service:
        said = service.wait_for("serving")
        target = next(address for address in said["listen"] if "127" in address)
        with grpc.insecure_channel(target) as channel:
            watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
            next(watching)  # kept: a call that is collected is cancelled, and then nothing is left to drain
            service.signal(signal.SIGTERM)
            service.wait_for("draining")
            status, detail = get(said["health"], "/readyz")
            assert (status, json.loads(detail)["obstacles"]) == (503, ["draining"])
            assert get(said["health"], "/healthz")[0] == 200
            watching.cancel()


def test_decisions_are_appended_to_the_file_that_was_asked_for(place: Place) -> None:
    log = place.directory / "decisions.log"
    place.write_config(f"audit: {{sink: file, path: {log}}}\n")
    with RunningService(place.config) as service:
        service.wait_for("serving")
        check(f"unix:{place.socket}")
        service.signal(signal.SIGTERM)
        assert service.wait()[1] == b""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["verdict"] for line in lines if "event" not in line] == ["allow"]


@pytest.mark.parametrize("server", ["grpcio", "fast"])
def test_proxies_and_operators_over_tcp_need_certificates_of_their_own_lists(place: Place, server: str) -> None:
    now = time.time()
    validity = {"not_before": now - 60, "not_after": now + 3600}
    authority = root("ca", **validity)
    proxy, operator = "spiffe://cluster.local/proxy", "spiffe://cluster.local/operator"

    def issue(spiffe_id: str, number: int) -> tuple[bytes, bytes]:
        key = private_key("P-256", number)
        certificate = authority.issue(uris=(spiffe_id,), dns=("authz.test",), key=key, **validity)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return text, pem(certificate).encode()

    key, certificate = issue("spiffe://cluster.local/authz", 1)
    (place.directory / "policies" / "key.pem").write_bytes(key)
    (place.directory / "policies" / "cert.pem").write_bytes(certificate)
    (place.directory / "policies" / "ca.pem").write_text(authority.pem)
    place.config.write_text(
        f'listen: ["127.0.0.1:0"]\npolicies: [{place.policies}]\nworkload: {{labels: {{app: hatshop}}}}\n'
        f"peer: {{trust_proxy: true}}\nhealth: {{listen: null}}\nserver: {server}\n"
        f'admin: {{listen: "127.0.0.1:0", allowed_spiffe_ids: ["{operator}"]}}\n'
        f"tls: {{cert_file: {place.policies}/cert.pem, key_file: {place.policies}/key.pem, "
        f'client_ca_file: {place.policies}/ca.pem, allowed_spiffe_ids: ["{proxy}"]}}\n'
    )

    def status_of(target: str, method: str, payload: bytes, caller: tuple[bytes, bytes]) -> grpc.StatusCode:
        credentials = grpc.ssl_channel_credentials(authority.pem.encode(), *caller)
        options = (("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(target, credentials, options) as channel:
            try:
                channel.unary_unary(method)(payload, timeout=5)
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    payload = check_request().SerializeToString()
    with RunningService(place.config) as service:
        check_target, admin_target = service.wait_for("serving")["listen"]
        outcomes = {
            (name, what): status_of(target, method, body, issue(spiffe_id, number))
            for number, (name, spiffe_id) in enumerate([("proxy", proxy), ("operator", operator)], start=2)
            for what, target, method, body in (
                ("check", check_target, CHECK, payload),
                ("status", admin_target, ADMIN + "GetStatus", b""),
            )
        }
        with socket.create_connection(("127.0.0.1", int(admin_target.rpartition(":")[2]))) as stranger:
            stranger.sendall(b"no TLS\r\n" * 10)
            stranger.recv(100)  # the handshake failed: gRPC would say so in lines of its own
        service.signal(signal.SIGTERM)
        said = service.wait()[2]
    assert [line for line in said.splitlines() if not line.startswith("{")] == []
    assert outcomes == {
        ("proxy", "check"): grpc.StatusCode.OK,
        ("proxy", "status"): grpc.StatusCode.PERMISSION_DENIED,
        ("operator", "check"): grpc.StatusCode.PERMISSION_DENIED,
        ("operator", "status"): grpc.StatusCode.OK,
    }
