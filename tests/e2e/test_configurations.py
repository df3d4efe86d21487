"""The annotated bootstraps equal the output of `zta-authz envoy-config`, and the real Envoy accepts both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

from envoy.demo import identities
from envoy.demo.envoyproc import validate
from zta_authz.cli import main

FOLDER = Path(__file__).resolve().parents[2] / "envoy"
STYLES = {"uds": "sidecar", "mtls-tcp": "mtls"}
TLS_FILES = {"server": "server", "client-ca": "ca", "authz-client": "payments", "authz-ca": "ca"}
VARIANTS = {
    "sidecar": ["--style", "sidecar"],
    "sidecar with 2 workers": ["--style", "sidecar", "--workers", "2"],
    "sidecar with 64 workers": ["--style", "sidecar", "--workers", "64"],
    "sidecar with a path that needs quotes": ["--authz", "unix:/run/a: 'b' #\"ü\\/{x}, [y].sock"],
    "mtls": ["--style", "mtls"],
    "mtls by name, of several": ["--authz", "zta-authz.zta-system.svc:9191", "--authz", "[::1]:9191"],
    "everything else": [
        *("--timeout", "1ms", "--body-bytes", "0", "--listen", "[::]:9443", "--upstream", "unix:/run/app.sock"),
        *("--admin", "unix:/run/envoy admin.sock", "--otlp", "collector.tracing.svc:4317"),
    ],
    "without admin": ["--admin", "off", "--upstream", "app.default.svc:80", "--timeout", "60s"],
}


def shipped(kind: str) -> str:
    return (FOLDER / f"bootstrap-{kind}.yaml").read_text()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the output of the command."""
    assert main(["envoy-config", *arguments]) == 0
    return capsys.readouterr().out


def evidence(config: Any) -> tuple[Any, Any]:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager, manager["http_filters"][0]["typed_config"]


@pytest.mark.parametrize("kind", STYLES)
def test_the_annotated_file_says_what_is_printed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    generated = yaml.safe_load(printed(capsys, "--style", STYLES[kind]))
    assert Bootstrap.from_dict(yaml.safe_load(shipped(kind))) == Bootstrap.from_dict(generated)


@pytest.mark.parametrize("kind", STYLES)
@pytest.mark.parametrize("source", ["annotated", "printed"])
def test_security_relevant_defaults_are_written_out(kind: str, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shipped(kind) if source == "annotated" else printed(capsys, "--style", STYLES[kind])
    manager, ext_authz = evidence(yaml.safe_load(text))
    assert ext_authz["failure_mode_allow"] is False
    assert ext_authz["status_on_error"] == {"code": "ServiceUnavailable"}
    assert ext_authz["clear_route_cache"] is False
    assert ext_authz["include_peer_certificate"] is True
    assert ext_authz["include_tls_session"] is True
    assert ext_authz["encode_raw_headers"] is True
    assert "with_request_body" not in ext_authz  # no rule reads bodies, and streaming calls would hang
    assert float(ext_authz["grpc_service"]["timeout"].removesuffix("s")) == 0.2
    assert manager["use_remote_address"] is True
    assert manager["forward_client_cert_details"] == "SANITIZE"
    assert (manager["normalize_path"], manager["merge_slashes"]) == (True, False)
    assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    protocol = manager["common_http_protocol_options"]
    assert protocol["headers_with_underscores_action"] == "REJECT_REQUEST"
    assert protocol["max_stream_duration"] == "900s"


@pytest.mark.parametrize("kind", STYLES)
def test_annotated_and_printed_configurations_have_the_same_fields(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def keys(value: Any, path: str = "") -> set[str]:
        if isinstance(value, dict):
            return {path}.union(*(keys(item, f"{path}.{key}") for key, item in value.items()))
        return {path}.union(*(keys(item, path) for item in value)) if isinstance(value, list) else {path}

    assert keys(yaml.safe_load(shipped(kind))) == keys(yaml.safe_load(printed(capsys, "--style", STYLES[kind])))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with certificates under the names that the configurations have for them."""
    root = tmp_path_factory.mktemp("minted")
    layout, files = identities.mint(root), root / "envoy"
    files.mkdir()
    for name, path in TLS_FILES.items():
        shutil.copyfile(layout.root / "tls" / f"{path}.pem", files / f"{name}.pem")
        if not name.endswith("ca"):
            shutil.copyfile(layout.key(path), files / f"{name}.key")
    return files


@pytest.mark.parametrize("kind", STYLES)
def test_envoy_takes_the_annotated_file(envoy_binary: Path, tls: Path, tmp_path: Path, kind: str) -> None:
    config = tmp_path / "bootstrap.yaml"
    config.write_text(shipped(kind).replace("/etc/envoy/tls", str(tls)))
    assert validate(envoy_binary, config) == ""


@pytest.mark.parametrize("output", ["yaml", "json"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_envoy_takes_what_is_printed(
    envoy_binary: Path, tls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], variant: str, output: str
) -> None:
    config = tmp_path / f"bootstrap.{output}"
    config.write_text(printed(capsys, *VARIANTS[variant], "--tls-dir", str(tls), "--output", output))
    assert validate(envoy_binary, config) == ""


@pytest.mark.parametrize("variant", VARIANTS)
def test_envoy_takes_the_parts_in_a_configuration_of_ones_own(
    envoy_binary: Path, tls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    own = yaml.safe_load(shipped("uds").replace("/etc/envoy/tls", str(tls)))
    arguments = [*VARIANTS[variant], "--tls-dir", str(tls)]
    evidence(own)[0]["http_filters"][0] = yaml.safe_load(printed(capsys, *arguments, "--part", "filter"))
    own["static_resources"]["clusters"][0] = yaml.safe_load(printed(capsys, *arguments, "--part", "cluster"))
    config = tmp_path / "bootstrap.yaml"
    config.write_text(yaml.safe_dump(own))
    assert validate(envoy_binary, config) == ""


def test_envoy_refuses_a_file_with_a_wrong_field(envoy_binary: Path, tls: Path, tmp_path: Path) -> None:
    config = tmp_path / "bootstrap.yaml"
    text = shipped("uds").replace("/etc/envoy/tls", str(tls))
    config.write_text(text.replace("status_on_error:", "status_on_mistake:"))
    assert "status_on_mistake" in validate(envoy_binary, config)


def test_the_parts_printed_at_once_are_the_parts_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    together = yaml.safe_load(printed(capsys, "--part", "all"))
    assert together == json.loads(printed(capsys, "--part", "all", "--output", "json"))
    assert together == {
        part: yaml.safe_load(printed(capsys, "--part", part)) for part in ("filter", "cluster", "bootstrap")
    }
    asked = together["filter"]["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert asked == together["cluster"]["name"]
    resources = together["bootstrap"]["static_resources"]
    assert resources["clusters"][0] == together["cluster"]
    assert evidence(together["bootstrap"])[0]["http_filters"][0] == together["filter"]
