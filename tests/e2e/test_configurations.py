"""The annotated bootstraps are what `build.py` builds, and the real Envoy takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

from envoy import build
from envoy.demo import identities
from envoy.demo.envoyproc import validate

FOLDER = Path(build.__file__).parent
KINDS = sorted(build.SHIPPED)
TLS_FILES = {"server": "server", "client-ca": "ca", "authz-client": "payments", "authz-ca": "ca"}


def _text(kind: str) -> str:
    return (FOLDER / f"bootstrap-{kind}.yaml").read_text()


def _filter(kind: str) -> Any:
    listener = yaml.safe_load(_text(kind))["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager, manager["http_filters"][0]["typed_config"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_annotated_file_says_what_is_built(kind: str) -> None:
    written = Bootstrap.from_dict(yaml.safe_load(_text(kind)))
    assert written == build.bootstrap(build.SHIPPED[kind]())


@pytest.mark.parametrize("kind", KINDS)
def test_the_annotated_file_states_what_must_never_be_left_to_a_default(kind: str) -> None:
    manager, ext_authz = _filter(kind)
    assert ext_authz["failure_mode_allow"] is False
    assert ext_authz["status_on_error"] == {"code": "ServiceUnavailable"}
    assert ext_authz["clear_route_cache"] is False
    assert ext_authz["include_peer_certificate"] is True
    assert ext_authz["include_tls_session"] is True
    assert ext_authz["encode_raw_headers"] is True
    assert ext_authz["with_request_body"]["pack_as_bytes"] is True
    assert ext_authz["grpc_service"]["timeout"] == "0.2s"
    assert manager["forward_client_cert_details"] == "SANITIZE"
    protocol = manager["common_http_protocol_options"]
    assert protocol["headers_with_underscores_action"] == "REJECT_REQUEST"
    assert protocol["max_stream_duration"] == "900s"


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> identities.Layout:
    """Certificates for the files that the configurations name."""
    return identities.mint(tmp_path_factory.mktemp("minted"))


def _with_files(text: str, minted: identities.Layout) -> str:
    """The configuration with our own certificates; everything else is left as it is."""
    for name, ours in TLS_FILES.items():
        for ending in ("pem", "key"):
            text = text.replace(f"/etc/envoy/tls/{name}.{ending}", str(minted.root / "tls" / f"{ours}.{ending}"))
    assert "/etc/envoy/tls" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_envoy_takes_the_annotated_file(
    envoy_binary: Path, minted: identities.Layout, tmp_path: Path, kind: str
) -> None:
    config = tmp_path / "bootstrap.yaml"
    config.write_text(_with_files(_text(kind), minted))
    assert validate(envoy_binary, config) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_envoy_takes_what_is_built(envoy_binary: Path, minted: identities.Layout, tmp_path: Path, kind: str) -> None:
    config = tmp_path / "bootstrap.yaml"
    config.write_text(_with_files(build.to_yaml(build.bootstrap(build.SHIPPED[kind]())), minted))
    assert validate(envoy_binary, config) == ""


def test_envoy_refuses_a_file_with_a_wrong_field(envoy_binary: Path, minted: identities.Layout, tmp_path: Path) -> None:
    config = tmp_path / "bootstrap.yaml"
    config.write_text(_with_files(_text("uds"), minted).replace("status_on_error:", "status_on_mistake:"))
    assert "status_on_mistake" in validate(envoy_binary, config)


def test_build_prints_a_configuration_and_refuses_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["uds"]) == 0
    assert Bootstrap.from_dict(yaml.safe_load(capsys.readouterr().out)) == build.bootstrap(build.shipped_uds())
    assert build.main(["udp"]) == 2
    assert "usage" in capsys.readouterr().err
