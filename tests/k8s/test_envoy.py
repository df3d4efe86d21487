"""The Envoy configurations in k8s/, whole or as patches, are taken by the real Envoy and agree with those of envoy/."""

from __future__ import annotations

import copy
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from envoy.demo import identities
from envoy.demo.client import Request, send, tls_context
from envoy.demo.envoyproc import NOT_FOUND, Envoy, find_envoy, validate
from envoy.demo.processes import wait_until
from tests.k8s.manifests import K8S, OVERLAYS, ROOT, Manifest, of_kind, render
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
BOOTSTRAP = ROOT / "envoy" / "bootstrap-uds.yaml"
EVIDENCE = ("include_peer_certificate", "include_tls_session", "encode_raw_headers", "validate_mutations")
BY_ISTIO = {
    "transport_api_version": "V3",
    "grpc_service": {"envoy_grpc": {"cluster_name": "zta_authz"}, "timeout": "0.2s"},
    "failure_mode_allow": False,
    "status_on_error": {"code": "ServiceUnavailable"},
}
"""What a provider without fields for evidence makes of its entry."""


@pytest.fixture(scope="module")
def envoy_binary() -> Path:
    binary = find_envoy()
    if binary is None:
        pytest.skip(NOT_FOUND)
    return binary


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> identities.Layout:
    """Certificates for the files that the configuration names."""
    return identities.mint(tmp_path_factory.mktemp("minted"))


def bootstrap() -> Any:
    return yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8"))


def manager_of(config: Any) -> dict[str, Any]:
    manager: dict[str, Any] = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    return manager


def filter_of(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = manager_of(config)["typed_config"]["http_filters"][0]
    return found


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """As EnvoyFilter's MERGE: fields are set, messages are merged."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = value


def with_istios_filter() -> Any:
    config = bootstrap()
    type_url = filter_of(config)["typed_config"]["@type"]
    filter_of(config)["typed_config"] = {"@type": type_url, **copy.deepcopy(BY_ISTIO)}
    manager = manager_of(config)["typed_config"]
    for name in ("path_with_escaped_slashes_action", "common_http_protocol_options"):
        del manager[name]
    return config


def apply(config: Any, envoy_filter: Manifest) -> None:
    """What istiod would make of the configuration."""
    for patch in envoy_filter["spec"]["configPatches"]:
        value, operation = patch["patch"]["value"], patch["patch"]["operation"]
        match (patch["applyTo"], operation):
            case ("HTTP_FILTER", "MERGE"):
                assert patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"] == value["name"]
                merge(filter_of(config), value)
            case ("NETWORK_FILTER", "MERGE"):
                merge(manager_of(config), value)
            case ("HTTP_FILTER", "INSERT_FIRST"):
                manager_of(config)["typed_config"]["http_filters"][0] = value
            case ("CLUSTER", "ADD"):
                config["static_resources"]["clusters"][0] = value
            case other:
                pytest.fail(f"the test does not know {other}")


def said(binary: Path, config: Any, minted: identities.Layout, folder: Path) -> str:
    text = yaml.safe_dump(config, sort_keys=False)
    for name, ours in {"server": "server", "client-ca": "ca"}.items():
        for ending in ("pem", "key"):
            text = text.replace(f"/etc/envoy/tls/{name}.{ending}", str(minted.root / "tls" / f"{ours}.{ending}"))
    file = folder / "envoy.yaml"
    file.write_text(text)
    return validate(binary, file)


def sidecars_files(kubectl: Path) -> dict[str, str]:
    """The sidecar's Envoy configuration and what it is told by SDS, by file name."""
    (holder,) = [each for each in of_kind(render(kubectl, "sidecar"), "ConfigMap") if "envoy.yaml" in each["data"]]
    found: dict[str, str] = holder["data"]
    return found


def written(files: dict[str, str], folder: Path) -> Path:
    """Write the files into `folder`, with the places that they name in a pod moved there; the configuration."""
    for name, text in files.items():
        moved = text.replace("/etc/envoy-config", str(folder)).replace("/etc/envoy/tls", str(folder / "tls"))
        (folder / name).write_text(moved)
    return folder / "envoy.yaml"


def mount(minted: identities.Layout, folder: Path, number: int) -> None:
    """Certificates as the kubelet mounts a Secret: a folder that a symbolic link is moved to, all at once."""
    version = folder / f"..version-{number}"
    version.mkdir(parents=True)
    for name, ours in {"server.pem": "server.pem", "server.key": "server.key", "client-ca.pem": "ca.pem"}.items():
        shutil.copyfile(minted.root / "tls" / ours, version / name)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / "..data")


def test_the_sidecars_envoy_is_configured_as_the_file_to_copy_but_for_its_certificates() -> None:
    ours = yaml.safe_load((K8S / "components" / "sidecar-envoy" / "envoy.yaml").read_text(encoding="utf-8"))
    copied = bootstrap()
    assert ours.pop("node") == {"id": "sidecar", "cluster": "sidecar"}
    pods = ours["static_resources"]["listeners"][0]["address"]["socket_address"]  # of either family, or of both
    assert (pods["address"], pods.pop("ipv4_compat")) == ("::", True)
    pods["address"] = "0.0.0.0"
    for config in (ours, copied):
        (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
        tls = chain["transport_socket"]["typed_config"]["common_tls_context"]
        for name in [name for name in tls if "certificate" in name or "validation" in name]:
            del tls[name]
        assert sorted(tls) == ["alpn_protocols", "tls_params"]
    assert ours == copied, "carry the change of envoy/bootstrap-uds.yaml over"


def test_the_sidecars_envoy_asks_as_the_settings_beside_it_say(capsys: pytest.CaptureFixture[str]) -> None:
    settings = K8S / "components" / "sidecar" / "config.yaml"
    assert Bootstrap.from_dict(printed(capsys, "--config", str(settings))) == Bootstrap.from_dict(bootstrap())


def test_the_sidecars_envoy_finds_its_files(kubectl: Path) -> None:
    (workload,) = of_kind(render(kubectl, "sidecar"), "Deployment")
    pod = workload["spec"]["template"]["spec"]
    (envoy,) = [each for each in pod["initContainers"] if each["name"] == "envoy"]
    mounts = {each["name"]: each["mountPath"] for each in envoy["volumeMounts"]}
    assert envoy["args"][:2] == ["-c", f"{mounts['envoy-config']}/envoy.yaml"]
    (secret,) = [each["secret"] for each in pod["volumes"] if each["name"] == "envoy-tls"]
    named = {f"{mounts['envoy-tls']}/{item['path']}" for item in secret["items"]}
    files = sidecars_files(kubectl)
    text = "".join(files.values())
    assert all(path in text for path in named)
    assert text.count("/etc/envoy/tls/") == len(named)
    assert {f"{mounts['envoy-config']}/{name}" for name in files if name != "envoy.yaml"} == {
        path for path in re.findall(r"path: (/[^}]+)}", files["envoy.yaml"]) if path.startswith("/etc/envoy-config")
    }


def test_a_service_names_no_port_of_a_native_sidecar(kubectl: Path) -> None:
    """Kubernetes before 1.32 finds no endpoints for such a name."""
    for overlay in OVERLAYS:
        manifests = render(kubectl, overlay)
        pods = [each["spec"]["template"]["spec"] for each in of_kind(manifests, "Deployment")]
        sidecars = {
            port["name"] for pod in pods for each in pod.get("initContainers", ()) for port in each.get("ports", ())
        }
        named = {port.get("targetPort") for each in of_kind(manifests, "Service") for port in each["spec"]["ports"]}
        assert not named & sidecars, overlay
    (service,) = of_kind(render(kubectl, "sidecar"), "Service")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [8443]


def test_envoy_takes_the_sidecars_configuration(
    kubectl: Path, envoy_binary: Path, minted: identities.Layout, tmp_path: Path
) -> None:
    mount(minted, tmp_path / "tls", 1)
    files = sidecars_files(kubectl)
    assert validate(envoy_binary, written(files, tmp_path)) == ""
    files["envoy.yaml"] = files["envoy.yaml"].replace("failure_mode_allow: false", "failure_mode_deny: true")
    assert "failure_mode_deny" in validate(envoy_binary, written(files, tmp_path))


def test_envoy_takes_a_renewed_certificate_and_new_authorities_without_a_restart(
    kubectl: Path, envoy_binary: Path, tmp_path: Path
) -> None:
    layouts = [
        identities.mint(tmp_path / f"minted-{number}") for number in range(2)
    ]  # each has an authority of its own
    mount(layouts[0], tmp_path / "tls", 1)
    files = sidecars_files(kubectl)
    files["envoy.yaml"] = (
        files["envoy.yaml"]
        .replace('{address: "::", ipv4_compat: true, port_value: 8443}', "{address: 127.0.0.1, port_value: 0}")
        .replace("socket_address: {address: 127.0.0.1, port_value: 9901}", f"pipe: {{path: {tmp_path}/admin.sock}}")
    )
    envoy = Envoy(envoy_binary, written(files, tmp_path), admin=tmp_path / "admin.sock")

    def accepted(layout: identities.Layout) -> bool:
        """Whether Envoy shows this authority's certificate, and takes a client's of it."""
        context = tls_context(layout.ca, (layout.certificate("frontend"), layout.key("frontend")))
        try:
            return send(envoy.port(), context, Request()).status == 503  # there is nobody to ask
        except OSError:
            return False

    try:
        envoy.wait_ready()
        wait_until(lambda: accepted(layouts[0]), envoy.child)
        assert not accepted(layouts[1])
        mount(layouts[1], tmp_path / "tls", 2)
        wait_until(lambda: accepted(layouts[1]), envoy.child)
        assert not accepted(layouts[0])
    finally:
        envoy.child.stop()


@pytest.mark.parametrize("overlay", ["istio", "istio-spire", "istio-sidecar"])
def test_envoy_takes_what_istio_makes_of_the_filter(
    kubectl: Path, envoy_binary: Path, minted: identities.Layout, tmp_path: Path, overlay: str
) -> None:
    (envoy_filter,) = of_kind(render(kubectl, overlay), "EnvoyFilter")
    config = with_istios_filter()
    apply(config, envoy_filter)
    assert said(envoy_binary, config, minted, tmp_path) == ""
    merge(filter_of(config), {"typed_config": {"include_peer_certificat": True}})
    assert "include_peer_certificat" in said(envoy_binary, config, minted, tmp_path)


@pytest.mark.parametrize("overlay", ["istio", "istio-sidecar"])
def test_zta_authz_gets_the_same_evidence_through_istio(kubectl: Path, overlay: str) -> None:
    (envoy_filter,) = of_kind(render(kubectl, overlay), "EnvoyFilter")
    config = with_istios_filter()
    apply(config, envoy_filter)
    ours, shipped = filter_of(config)["typed_config"], filter_of(bootstrap())["typed_config"]
    assert {name: ours[name] for name in EVIDENCE} == {name: shipped[name] for name in EVIDENCE}
    assert {name: ours[name] for name in BY_ISTIO} == {name: shipped[name] for name in BY_ISTIO}
    manager, model = manager_of(config)["typed_config"], manager_of(bootstrap())["typed_config"]
    assert manager["path_with_escaped_slashes_action"] == model["path_with_escaped_slashes_action"]
    assert manager["common_http_protocol_options"].items() <= model["common_http_protocol_options"].items()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What `zta-authz envoy-config` prints."""
    assert main(["envoy-config", "--output", "json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_istios_sidecar_has_the_filter_and_the_cluster_that_the_command_prints(
    kubectl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (envoy_filter,) = of_kind(render(kubectl, "istio-sidecar"), "EnvoyFilter")
    config = with_istios_filter()
    apply(config, envoy_filter)
    assert filter_of(config) == filter_of(bootstrap())
    built = printed(capsys, "--style", "sidecar", "--part", "all")
    assert HttpFilter.from_dict(filter_of(config)) == HttpFilter.from_dict(built["filter"])
    assert Cluster.from_dict(config["static_resources"]["clusters"][0]) == Cluster.from_dict(built["cluster"])
    assert isinstance(Listener.from_dict(config["static_resources"]["listeners"][0]), Listener)


def test_envoy_takes_what_envoy_gateway_makes_of_the_patches(
    kubectl: Path, envoy_binary: Path, minted: identities.Layout, tmp_path: Path
) -> None:
    manifests = render(kubectl, "envoy-gateway")
    (policy,) = of_kind(manifests, "EnvoyPatchPolicy")
    config = with_istios_filter()
    del filter_of(config)["typed_config"]["status_on_error"]
    # Envoy Gateway always writes these options, and with them the action that ClientTrafficPolicy names.
    manager_of(config)["typed_config"]["common_http_protocol_options"] = {"headers_with_underscores_action": "ALLOW"}
    for patch in policy["spec"]["jsonPatches"]:
        of_manager = "http_connection_manager" in patch["operation"]["jsonPath"]
        place = (manager_of(config) if of_manager else filter_of(config))["typed_config"]
        *folders, name = patch["operation"]["path"].strip("/").split("/")
        for folder in folders:
            place = place[folder]
        place[name] = patch["operation"]["value"]
    assert said(envoy_binary, config, minted, tmp_path) == ""
    ours, shipped = filter_of(config)["typed_config"], filter_of(bootstrap())["typed_config"]
    names = (*EVIDENCE, "status_on_error", "grpc_service")
    assert {name: ours[name] for name in names} == {name: shipped[name] for name in names}


def test_envoy_gateways_patches_name_the_filter_and_the_listener_that_it_makes(kubectl: Path) -> None:
    manifests = render(kubectl, "envoy-gateway")
    (policy,), (gateway,) = of_kind(manifests, "SecurityPolicy"), of_kind(manifests, "Gateway")
    (patch_policy,) = of_kind(manifests, "EnvoyPatchPolicy")
    place = f"securitypolicy/{policy['metadata']['namespace']}/{policy['metadata']['name']}"
    (listener,) = gateway["spec"]["listeners"]
    for patch in patch_policy["spec"]["jsonPatches"]:
        path = patch["operation"]["jsonPath"]
        assert f"=='envoy.filters.http.ext_authz/{place}')" in path or f"=='{CONNECTION_MANAGER}')" in path
        assert patch["name"] == f"{gateway['metadata']['namespace']}/{gateway['metadata']['name']}/{listener['name']}"
    assert patch_policy["spec"]["targetRef"]["name"] == gateway["metadata"]["name"]


def test_the_printed_cluster_expects_the_same_name_of_the_authorizer(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.k8s.test_contents import AUTHORIZER

    tls = printed(capsys, "--style", "mtls", "--part", "cluster")["transport_socket"]["typed_config"]
    (server,) = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert server["matcher"] == {"exact": AUTHORIZER}
