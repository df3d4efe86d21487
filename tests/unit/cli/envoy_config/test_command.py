"""`zta-authz envoy-config` as an operator uses it. Tests in tests/e2e load its output into the real Envoy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.unit.cli.envoy_config.settings import TLS, settings_file
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["envoy-config", "--output", "json", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def addresses(cluster: Any) -> list[Any]:
    (locality,) = cluster["load_assignment"]["endpoints"]
    return [endpoint["endpoint"]["address"] for endpoint in locality["lb_endpoints"]]


def pipes(cluster: Any) -> list[str]:
    return [address["pipe"]["path"] for address in addresses(cluster)]


def manager(bootstrap: Any) -> Any:
    return bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def clusters(bootstrap: Any) -> dict[str, Any]:
    return {cluster["name"]: cluster for cluster in bootstrap["static_resources"]["clusters"]}


def expected_id(cluster: Any) -> str:
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    (server,) = context["match_typed_subject_alt_names"]
    assert server["san_type"] == "URI"
    spiffe_id: str = server["matcher"]["exact"]
    return spiffe_id


# Where zta-authz is


def test_each_worker_of_the_settings_has_an_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'listen: ["127.0.0.1:9191", "unix:/run/a/x.sock"]\nworkers: 3\n'
    config = settings_file(tmp_path, text)
    cluster = printed(capsys, "--config", config, "--part", "cluster")
    assert pipes(cluster) == ["/run/a/x.sock.1", "/run/a/x.sock.2", "/run/a/x.sock.3"]
    assert "transport_socket" not in cluster
    assert cluster["type"] == "STATIC"


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("[::]:8443", {"address": "::", "port_value": 8443, "ipv4_compat": True}),
        ("[::1]:8443", {"address": "::1", "port_value": 8443}),
        ("0.0.0.0:8443", {"address": "0.0.0.0", "port_value": 8443}),
    ],
)
def test_the_wildcard_ipv6_address_accepts_ipv4_too(
    listen: str, address: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    listener = printed(capsys, "--listen", listen)["static_resources"]["listeners"][0]
    assert listener["address"]["socket_address"] == address


def test_the_environment_overrides_the_settings_as_it_does_for_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZTA_WORKERS", "2")
    monkeypatch.setenv("ZTA_LISTEN", '["unix:/run/b.sock"]')
    assert pipes(printed(capsys, "--part", "cluster")) == ["/run/b.sock.1", "/run/b.sock.2"]


def test_options_override_the_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings_file(tmp_path, "workers: 3\n")
    arguments = ["--config", config, "--authz", "unix:/run/c.sock", "--workers", "1", "--part", "cluster"]
    assert pipes(printed(capsys, *arguments)) == ["/run/c.sock"]


def test_the_default_address_is_the_socket_that_serve_listens_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert pipes(printed(capsys, "--part", "cluster")) == ["/run/zta-authz/authz.sock"]


def test_settings_that_listen_on_tcp_alone_make_it_mutual_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'listen: ["10.1.2.3:9191"]\nworkload: {trust_domain: shop.example}\n' + TLS
    config = settings_file(tmp_path, text)
    cluster = printed(capsys, "--config", config, "--part", "cluster")
    assert addresses(cluster) == [{"socket_address": {"address": "10.1.2.3", "port_value": 9191}}]
    assert expected_id(cluster) == "spiffe://shop.example/ns/zta-system/sa/zta-authz"
    assert main(["envoy-config", "--config", config, "--part", "cluster"]) == 0
    assert "`tls.allowed_spiffe_ids` of zta-authz must list it: spiffe://shop.example/envoy." in " ".join(
        capsys.readouterr().out.replace("#", " ").split()
    )


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--trust-domain", "other.example"], "spiffe://other.example/ns/zta-system/sa/zta-authz"),
        (["--authz-id", "spiffe://a.example/authz"], "spiffe://a.example/authz"),
    ],
)
def test_the_authorizers_name_is_pinned(arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = printed(capsys, "--style", "mtls", "--part", "cluster", *arguments)
    assert expected_id(cluster) == name
    tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    assert set(tls["tls_params"].values()) == {"TLSv1_3"}


def test_a_name_is_resolved_and_several_processes_are_several_endpoints(capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--authz", "zta-authz.zta-system.svc:9191", "--authz", "[fd00::1]:9191"]
    cluster = printed(capsys, *named, "--part", "cluster")
    assert cluster["type"] == "STRICT_DNS"
    assert [address["socket_address"]["address"] for address in addresses(cluster)] == [
        "zta-authz.zta-system.svc",
        "fd00::1",
    ]


# The filter


def test_the_timeout_bounds_all_tries_and_each(capsys: pytest.CaptureFixture[str]) -> None:
    service = printed(capsys, "--part", "filter", "--timeout", "1.5s")["typed_config"]["grpc_service"]
    assert service["timeout"] == "1.500s"
    assert service["retry_policy"]["retry_back_off"] == {"base_interval": "0.005s", "max_interval": "1.500s"}
    service = printed(capsys, "--part", "filter", "--timeout", "2ms")["typed_config"]["grpc_service"]
    assert service["retry_policy"]["retry_back_off"] == {"base_interval": "0.002s", "max_interval": "0.002s"}


def test_bodies_are_sent_up_to_the_given_size(capsys: pytest.CaptureFixture[str]) -> None:
    sent = printed(capsys, "--part", "filter", "--body-bytes", "100")["typed_config"]["with_request_body"]
    assert sent == {"max_request_bytes": 100, "allow_partial_message": True, "pack_as_bytes": True}
    for none in ([], ["--body-bytes", "0"]):
        assert "with_request_body" not in printed(capsys, "--part", "filter", *none)["typed_config"]


# Envoy itself


def test_streams_and_websockets_are_supported_if_requested(capsys: pytest.CaptureFixture[str]) -> None:
    plain = printed(capsys)
    route = manager(plain)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert ("upgrade_configs" in manager(plain), "timeout" in route) == (False, False)
    assert "typed_extension_protocol_options" not in clusters(plain)["application"]
    streaming = printed(capsys, "--websocket", "--upstream-protocol=http2")
    route = manager(streaming)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert manager(streaming)["upgrade_configs"] == [{"upgrade_type": "websocket"}]
    assert route["timeout"] == "0s"
    assert manager(streaming)["common_http_protocol_options"]["max_stream_duration"] == "900s"
    assert "http2_protocol_options" in json.dumps(clusters(streaming)["application"])


def test_cors_comes_before_asking_and_names_its_origins(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cors-origin", "https://shop.example", "--cors-origin", "http://localhost:3000"]
    config = manager(printed(capsys, *arguments))
    names = [http_filter["name"].rpartition(".")[2] for http_filter in config["http_filters"]]
    assert names == ["cors", "ext_authz", "router"]
    host = config["route_config"]["virtual_hosts"][0]
    policy = host["typed_per_filter_config"]["envoy.filters.http.cors"]
    assert policy["allow_origin_string_match"] == [
        {"exact": "https://shop.example"},
        {"exact": "http://localhost:3000"},
    ]
    assert [
        http_filter["name"].rpartition(".")[2] for http_filter in manager(printed(capsys))["http_filters"]
    ] == names[1:]


def test_cors_says_that_preflights_come_without_a_client_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    note = "send preflights without a client certificate"
    for arguments, times in (["--cors-origin=https://shop.example"], 1), ([], 0):
        assert main(["envoy-config", *arguments]) == 0
        assert " ".join(capsys.readouterr().out.replace("#", "").split()).count(note) == times


@pytest.mark.parametrize("part", ["filter", "cluster"])
def test_an_option_without_effect_on_the_printed_part_is_a_fault(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cors-origin=https://shop.example", "--websocket", "--upstream-protocol=http1"]
    assert main(["envoy-config", "--part", part, *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["--cors-origin", "--upstream-protocol", "--websocket"]
    assert all(f"has no effect on --part {part}" in line for line in lines)
    assert main(["envoy-config", "--part", "all", *options]) == 0


@pytest.mark.parametrize("origin", ["https://shop.example:443", "http://[::1]:80"])
def test_an_origin_with_a_port_that_browsers_leave_out_is_refused(
    origin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["envoy-config", f"--cors-origin={origin}"]) == 2
    assert f"write `{origin.rpartition(':')[0]}`" in capsys.readouterr().err
    assert main(["envoy-config", f"--cors-origin={origin}0"]) == 0


@pytest.mark.parametrize(
    "origin",
    ["https://shop.example:65536", "*", "https://shop.example/", "shop.example", "https://Shop.example", "null", ""],
)
def test_an_invalid_origin_is_refused(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envoy-config", f"--cors-origin={origin}"]) == 2
    assert "is not an origin" in capsys.readouterr().err


def test_addresses_of_envoy_are_those_that_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--listen", "[::]:444", "--upstream", "unix:/run/app.sock", "--admin", "[::1]:9", "--tls-dir", "/tls"]
    config = printed(capsys, *arguments)
    (listener,) = config["static_resources"]["listeners"]
    assert listener["address"] == {"socket_address": {"address": "::", "port_value": 444, "ipv4_compat": True}}
    assert config["admin"]["address"] == {"socket_address": {"address": "::1", "port_value": 9}}
    assert pipes(clusters(config)["application"]) == ["/run/app.sock"]
    text = json.dumps(config)
    assert "/tls/server.key" in text
    assert "/etc/envoy/tls" not in text


@pytest.mark.parametrize(
    ("upstream", "note"),
    [
        ("127.0.0.1:1", "accepts connections from this machine only"),
        ("app.default.svc:80", "connections that bypass Envoy are not authorized"),
    ],
)
def test_a_comment_says_whether_other_machines_can_reach_the_application(
    upstream: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["envoy-config", "--upstream", upstream]) == 0
    assert note in capsys.readouterr().out


def test_admin_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert "admin" not in printed(capsys, "--admin", "off")


def test_spans_go_to_the_collector_and_as_many_as_the_settings_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "tracing" not in manager(printed(capsys))
    text = "tracing: {sample_ratio: 0.25}\nclient_address: {xff_num_trusted_hops: 2}\n"
    config = printed(capsys, "--config", settings_file(tmp_path, text), "--otlp", "otel.tracing.svc:4317")
    assert manager(config)["tracing"]["random_sampling"] == {"value": 25.0}
    assert clusters(config)["otlp_collector"]["type"] == "STRICT_DNS"
    assert manager(config)["xff_num_trusted_hops"] == 2


def test_the_clients_address_is_determined_as_in_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert manager(printed(capsys))["use_remote_address"] is True
    behind = settings_file(tmp_path, "client_address: {use_remote_address: false, xff_num_trusted_hops: 1}\n")
    assert manager(printed(capsys, "--config", behind))["use_remote_address"] is False
    assert main(["envoy-config", "--config", behind]) == 0
    assert "X-Forwarded-For has the client's address" in capsys.readouterr().out
    assert manager(printed(capsys, "--config", settings_file(tmp_path, "workers: 1\n")))["use_remote_address"] is True


def test_the_permitted_users_are_named_in_a_comment_on_the_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_file(tmp_path, "server: fast\nsocket: {peer_uids: [1337, 65531]}\n")
    assert main(["envoy-config", "--config", config, "--part", "cluster"]) == 0
    assert "Envoy must run as one of the users 1337, 65531" in capsys.readouterr().out


# What it looks like


def test_the_same_arguments_print_the_same_bytes() -> None:
    command = [sys.executable, "-m", "zta_authz", "envoy-config", "--part", "all", "--workers", "2"]
    first, second = (
        subprocess.run(command, capture_output=True, check=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    )
    assert first == second
    assert first.startswith(b"# Made by `zta-authz envoy-config --style sidecar`")


@pytest.mark.parametrize("arguments", [["--style", "sidecar"], ["--style", "mtls", "--otlp", "127.0.0.1:4317"]])
def test_yaml_and_json_say_the_same(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("filter", "cluster", "bootstrap", "all"):
        assert main(["envoy-config", *arguments, "--part", part]) == 0
        text = capsys.readouterr().out
        assert yaml.safe_load(text) == printed(capsys, *arguments, "--part", part)
        assert max(map(len, text.splitlines())) <= 140  # the longest is a type's name


def test_every_comment_is_used_in_some_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    from zta_authz.cli.envoy_config.comments import _NOTES

    more = ["--otlp", "127.0.0.1:4317", "--websocket", "--body-bytes", "100"]
    assert main(["envoy-config", "--style", "mtls", *more]) == 0
    shown = " ".join(line.strip().removeprefix("# ") for line in capsys.readouterr().out.splitlines())
    hidden = [path for path, note in _NOTES.items() if note not in shown]
    assert hidden == []


@pytest.mark.parametrize("variant", [["--style", "sidecar"], ["--style", "mtls"]])
def test_the_filter_says_what_it_needs_of_its_connection_manager(
    variant: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["envoy-config", *variant, "--part", "filter"]) == 0
    above = " ".join(line.removeprefix("#") for line in capsys.readouterr().out.splitlines() if line.startswith("#"))
    needed = manager(printed(capsys, *variant))
    options = needed["common_http_protocol_options"]
    assert f"forward_client_cert_details: {needed['forward_client_cert_details']}" in above
    assert f"path_with_escaped_slashes_action: {needed['path_with_escaped_slashes_action']}" in above
    assert f"normalize_path: {str(needed['normalize_path']).lower()}" in above
    assert f"merge_slashes: {str(needed['merge_slashes']).lower()}" in above
    assert f"headers_with_underscores_action: {options['headers_with_underscores_action']}" in above
    assert f"max_stream_duration: {options['max_stream_duration']}" in above


def test_the_other_commands_do_not_load_envoys_messages() -> None:
    script = (
        "import sys; from zta_authz.cli.main import parser; parser(); "
        "import zta_authz.cli.envoy_config.plan; "
        "sys.exit(any(name.partition('.')[0] in ('envoy_data_plane', 'betterproto2') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_clients_chain_is_sent_where_the_settings_look_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection_manager = manager(printed(capsys))
    assert connection_manager["forward_client_cert_details"] == "SANITIZE"
    assert "set_current_client_cert_details" not in connection_manager
    config = settings_file(tmp_path, "peer: {chain_from: [certificate, xfcc]}\n")
    connection_manager = manager(printed(capsys, "--config", config))
    assert connection_manager["forward_client_cert_details"] == "SANITIZE_SET"
    assert connection_manager["set_current_client_cert_details"] == {"uri": True, "cert": True, "chain": True}
    assert main(["envoy-config", "--part", "filter", "--config", config]) == 0
    assert "forward_client_cert_details: SANITIZE_SET" in capsys.readouterr().out


# Clients without a certificate


def test_clients_may_connect_without_a_certificate_if_requested(capsys: pytest.CaptureFixture[str]) -> None:
    def tls(*arguments: str) -> Any:
        (chain,) = printed(capsys, *arguments)["static_resources"]["listeners"][0]["filter_chains"]
        return chain["transport_socket"]["typed_config"]

    required, optional = tls(), tls("--client-certificates", "optional")
    assert (required["require_client_certificate"], optional["require_client_certificate"]) == (True, False)
    assert tls("--client-certificates", "required") == required
    assert optional["common_tls_context"] == required["common_tls_context"], "one that is shown is still verified"
    assert main(["envoy-config", "--client-certificates", "optional"]) == 0
    assert "A certificate that a client presents is verified" in " ".join(
        capsys.readouterr().out.replace("#", "").split()
    )


def test_client_certificates_are_refused_for_a_part_that_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envoy-config", "--part", "filter", "--client-certificates", "optional"]) == 2
    assert "--client-certificates: has no effect on --part filter" in capsys.readouterr().err
