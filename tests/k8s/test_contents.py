"""What is inside the manifests: settings that load, rules that pass, and parts that agree with each other."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from tests.k8s.manifests import (
    K8S,
    OVERLAYS,
    Manifest,
    authorizers,
    containers_of,
    data_of,
    mounted,
    of_kind,
    pod_of,
    render,
    schema_for,
)
from zta_authz.cli.main import main
from zta_authz.errors import SettingsErrors
from zta_authz.model.options import Workload
from zta_authz.policy.workloads import LABELS_EXTENSION, NAMESPACE_EXTENSION
from zta_authz.servers.listeners import Endpoint
from zta_authz.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUTHORIZER = "spiffe://cluster.local/ns/zta-system/sa/zta-authz"
CONFIG = "/etc/zta-authz/config"
SHARED = [name for name in OVERLAYS if "sidecar" not in name]


def environment_of(workload: Manifest, container: dict[str, Any]) -> dict[str, str]:
    """The container's variables as the kubelet sets them."""
    found = {}
    for variable in container.get("env", ()):
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        assert field in (None, "metadata.namespace")
        found[variable["name"]] = variable["value"] if field is None else workload["metadata"]["namespace"]
    return found


class Installed:
    """The one authorizer of an overlay, its settings loaded as its container would."""

    def __init__(self, kubectl: Path, overlay: str, folder: Path) -> None:
        self.manifests = render(kubectl, overlay)
        ((self.workload, self.container),) = authorizers(self.manifests)
        self.files = mounted(self.manifests, self.workload, self.container)
        self.environment = environment_of(self.workload, self.container)
        self.config = folder / "config.yaml"
        self.config.write_text(self.files[CONFIG]["config.yaml"])
        self.folder = folder

    @property
    def settings(self) -> Settings:
        return load_settings(str(self.config), self.environment)

    @property
    def mounts(self) -> dict[str, dict[str, Any]]:
        return {mount["mountPath"]: mount for mount in self.container["volumeMounts"]}

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    def policies(self) -> list[str]:
        """The mounted policies as files of ours, in one folder for each mount."""
        folders = []
        for path in self.settings.policies:
            folder = self.folder / path.strip("/")
            folder.mkdir(parents=True)
            for name, text in self.files[path].items():
                (folder / name).write_text(text)
            folders.append(str(folder))
        return folders


@pytest.fixture(params=OVERLAYS)
def installed(kubectl: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Installed:
    return Installed(kubectl, request.param, tmp_path)


def test_the_settings_load(installed: Installed) -> None:
    settings = installed.settings
    assert settings.semantics == "strict"
    assert not settings.insecure
    assert settings.options().default_allow is False
    assert settings.audit.on_full == "deny"


def test_a_setting_that_does_not_exist_is_refused(installed: Installed) -> None:
    installed.config.write_text(installed.config.read_text() + "fail_open: true\n")
    with pytest.raises(SettingsErrors, match="fail_open"):
        _ = installed.settings


def test_the_container_starts_with_the_mounted_settings(installed: Installed) -> None:
    assert installed.container["args"] == ["serve", "--config", f"{CONFIG}/config.yaml"]


def test_every_policy_folder_is_mounted_and_no_other(installed: Installed) -> None:
    assert set(installed.settings.policies) == {path for path in installed.mounts if "/policies/" in path}


def test_every_file_of_the_settings_is_in_a_mount(installed: Installed) -> None:
    settings = installed.settings
    files = [bundle.file for bundle in settings.bundles]
    if settings.tls is not None:
        files += [settings.tls.cert_file, settings.tls.key_file, settings.tls.client_ca_file]
    files.append((settings.workload_api.socket or "").removeprefix("unix:"))
    for file in filter(None, files):
        assert file.rpartition("/")[0] in installed.mounts, file


def test_there_is_a_trust_bundle_for_the_trust_domain(installed: Installed) -> None:
    settings = installed.settings
    domains = {bundle.trust_domain for bundle in settings.bundles}
    assert settings.workload.trust_domain in domains or settings.takes_agent_bundles


def test_it_listens_where_it_is_asked_and_probed(installed: Installed) -> None:
    settings = installed.settings
    assert settings.health.listen is not None
    health = next(name for name, port in installed.ports.items() if port == Endpoint.parse(settings.health.listen).port)
    probes = [installed.container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["httpGet"] for probe in probes] == [
        {"path": path, "port": health} for path in ("/readyz", "/readyz", "/healthz")
    ]
    (listen,) = settings.endpoints()
    assert listen.is_unix or listen.port == installed.ports["grpc-authz"]


def test_draining_ends_before_the_kubelet_loses_patience(installed: Installed) -> None:
    waits = [
        each.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for each in containers_of(installed.workload)
    ]
    patience = pod_of(installed.workload)["terminationGracePeriodSeconds"]
    assert max(waits) > 0
    assert sum(waits) + installed.settings.drain_seconds < patience


def test_the_rules_pass_the_check_without_a_warning(installed: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    folders = installed.policies()
    assert len(folders) == 4
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ZTA_")]:
            patch.delenv(name)
        for name, value in installed.environment.items():
            patch.setenv(name, value)
        assert main(["check", "--strict-warnings", "--config", str(installed.config), *folders]) == 0
        (installed.folder / "etc/zta-authz/policies/hatshop/hatshop.yaml").write_text("kind: AuthorizationPolicy\n")
        assert main(["check", "--config", str(installed.config), *folders]) == 2
    assert "hatshop.yaml:1:1" in capsys.readouterr().err


def test_the_rules_are_what_istio_takes_too(installed: Installed) -> None:
    for path in installed.settings.policies:
        for text in installed.files[path].values():
            for document in yaml.safe_load_all(text):
                if document["apiVersion"] == "zta.dev/v1":
                    continue  # ours, which Istio never sees
                jsonschema.validate(document, schema_for(document["kind"]))


def test_each_team_has_a_config_map_of_its_own_hashed_or_live(installed: Installed) -> None:
    volumes = {each["name"]: each for each in pod_of(installed.workload)["volumes"]}
    names = [
        volumes[mount["name"]]["configMap"]["name"] for path, mount in installed.mounts.items() if "/policies/" in path
    ]
    assert len(set(names)) == len(names)
    by_name = {each["metadata"]["name"]: each for each in of_kind(installed.manifests, "ConfigMap")}
    kinds = {name.removeprefix("zta-authz-policies-"): by_name[name].get("immutable", False) for name in names}
    assert {name for name, immutable in kinds.items() if not immutable} == {"hatshop", "payments", "revocations"}
    assert all("-" in name for name, immutable in kinds.items() if immutable)


@pytest.fixture(params=SHARED)
def shared(kubectl: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Installed:
    return Installed(kubectl, request.param, tmp_path)


def test_the_service_leads_to_the_authorizers_port(shared: Installed) -> None:
    (service,) = [each for each in of_kind(shared.manifests, "Service") if each["metadata"]["name"] == "zta-authz"]
    (port,) = service["spec"]["ports"]
    assert (port["port"], shared.ports[port["targetPort"]]) == (9191, 9191)
    labels = shared.workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_network_policies_open_the_ports_that_are_used(shared: Installed) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(shared.manifests, "NetworkPolicy")}
    assert policies["proxies-ask"]["ingress"][0]["ports"][0]["port"] == shared.ports["grpc-authz"]
    assert policies["prometheus-scrapes"]["ingress"][0]["ports"][0]["port"] == shared.ports["http-health"]
    assert shared.settings.tracing.otlp is not None
    collector = str(policies["traces-to-collector"]["egress"][0]["ports"][0]["port"])
    assert shared.settings.tracing.otlp.endpoint.endswith(f":{collector}")
    namespaces = of_kind(shared.manifests, "Namespace")
    assert [each for each in namespaces if each["metadata"]["labels"].get("zta.dev/asks") == "true"]


def _of_the_authorizers(shared: Installed, kind: str) -> list[Manifest]:
    return [each for each in of_kind(shared.manifests, kind) if each["metadata"]["name"] == "zta-authz"]


def test_several_replicas_survive_drains_and_zones(shared: Installed) -> None:
    (scaler,) = of_kind(shared.manifests, "HorizontalPodAutoscaler")
    (budget,) = _of_the_authorizers(shared, "PodDisruptionBudget")
    assert scaler["spec"]["minReplicas"] >= 3 > budget["spec"]["maxUnavailable"]
    assert "replicas" not in shared.workload["spec"]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["containerResource"]["container"] == shared.container["name"]
    spread = pod_of(shared.workload)["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_callers_are_listed_and_workloads_are_theirs(shared: Installed) -> None:
    settings = shared.settings
    assert settings.tls is not None
    callers = set(settings.tls.allowed_spiffe_ids)
    assert callers
    assert {each.principal for each in settings.workloads} | {each.spiffe_id for each in settings.gateways} == callers


def test_the_authorizers_name_is_the_one_that_proxies_expect(shared: Installed) -> None:
    pod, namespace = pod_of(shared.workload), shared.workload["metadata"]["namespace"]
    assert f"spiffe://cluster.local/ns/{namespace}/sa/{pod['serviceAccountName']}" == AUTHORIZER
    for policy in of_kind(shared.manifests, "BackendTLSPolicy"):
        assert policy["spec"]["validation"]["subjectAltNames"] == [{"type": "URI", "uri": AUTHORIZER}]


def test_istio_asks_the_service_by_the_providers_name(kubectl: Path) -> None:
    values = yaml.safe_load((K8S / "istio" / "meshconfig.values.yaml").read_text(encoding="utf-8"))
    (provider,) = values["meshConfig"]["extensionProviders"]
    for overlay in ("istio", "istio-spire"):
        manifests = render(kubectl, overlay)
        (policy,) = of_kind(manifests, "AuthorizationPolicy")
        (rule,) = of_kind(manifests, "DestinationRule")
        assert policy["spec"] == {"action": "CUSTOM", "provider": {"name": provider["name"]}, "rules": [{}]}
        assert provider["envoyExtAuthzGrpc"]["service"] == rule["spec"]["host"]
        (service,) = of_kind(manifests, "Service")
        metadata = service["metadata"]
        assert rule["spec"]["host"] == f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local"
        assert provider["envoyExtAuthzGrpc"]["port"] == service["spec"]["ports"][0]["port"]


@pytest.mark.parametrize(
    ("overlay", "kind"),
    [
        ("istio", "AuthorizationPolicy"),
        ("istio-spire", "AuthorizationPolicy"),
        ("istio-sidecar", "EnvoyFilter"),
        ("envoy-gateway", "SecurityPolicy"),
    ],
)
def test_what_makes_proxies_ask_can_be_applied_last(kubectl: Path, overlay: str, kind: str) -> None:
    labelled = [each for each in render(kubectl, overlay) if "zta.dev/enforces" in each["metadata"].get("labels", {})]
    assert [each["kind"] for each in labelled] == [kind]


def test_the_gateway_may_name_the_workload_that_its_route_names(kubectl: Path, tmp_path: Path) -> None:
    gateway = Installed(kubectl, "envoy-gateway", tmp_path)
    (policy,) = of_kind(gateway.manifests, "SecurityPolicy")
    extensions = {each["name"]: each["value"] for each in policy["spec"]["extAuth"]["contextExtensions"]}
    assert set(extensions) == {NAMESPACE_EXTENSION, LABELS_EXTENSION}
    (listed,) = gateway.settings.gateways
    assert extensions[NAMESPACE_EXTENSION] in listed.namespaces
    (grant,) = of_kind(gateway.manifests, "ReferenceGrant")
    (backend,) = policy["spec"]["extAuth"]["grpc"]["backendRefs"]
    assert grant["spec"]["to"] == [{"group": "", "kind": "Service", "name": backend["name"]}]
    assert grant["metadata"]["namespace"] == backend["namespace"]
    assert grant["spec"]["from"][0]["namespace"] == policy["metadata"]["namespace"]


@pytest.mark.parametrize("overlay", ["sidecar", "istio-sidecar"])
def test_only_the_authorizer_can_write_where_the_socket_is(kubectl: Path, tmp_path: Path, overlay: str) -> None:
    installed = Installed(kubectl, overlay, tmp_path)
    (listen,) = installed.settings.endpoints()
    folder = listen.path.rpartition("/")[0]
    volume = installed.mounts[folder]["name"]
    assert next(each for each in pod_of(installed.workload)["volumes"] if each["name"] == volume)["emptyDir"]
    others = [
        mount
        for container in containers_of(installed.workload)
        for mount in container.get("volumeMounts", ())
        if mount["name"] == volume and container["name"] != "zta-authz"
    ]
    annotations = installed.workload["spec"]["template"]["metadata"]["annotations"]
    others += yaml.safe_load(annotations.get("sidecar.istio.io/userVolumeMount", "[]"))
    assert [(mount["mountPath"], mount["readOnly"]) for mount in others] == [(folder, True)]
    group = pod_of(installed.workload)["securityContext"]["fsGroup"]
    assert (installed.settings.socket.mode, installed.settings.socket.group) == ("0660", str(group))
    assert group == 1337, "what Istio's proxy runs as"
    proxies = {
        each["securityContext"]["runAsUser"] for each in containers_of(installed.workload) if each["name"] == "envoy"
    }
    assert set(installed.settings.socket.peer_uids) >= (proxies or {1337})
    assert installed.settings.server == "fast"


@pytest.mark.parametrize("overlay", ["sidecar", "istio-sidecar"])
def test_the_sidecar_decides_for_the_workload_it_stands_beside(kubectl: Path, tmp_path: Path, overlay: str) -> None:
    installed = Installed(kubectl, overlay, tmp_path)
    workload = installed.settings.options().workload
    assert isinstance(workload, Workload)
    assert workload.namespace == installed.workload["metadata"]["namespace"]
    assert workload.labels.items() <= installed.workload["spec"]["template"]["metadata"]["labels"].items()


def test_what_the_application_needs_starts_before_it(kubectl: Path) -> None:
    (workload,) = of_kind(render(kubectl, "sidecar"), "Deployment")
    before = pod_of(workload)["initContainers"]
    assert [(each["name"], each["restartPolicy"]) for each in before] == [("zta-authz", "Always"), ("envoy", "Always")]
    assert all("startupProbe" in each for each in before)


def _ca_files(manifests: list[Manifest]) -> Iterator[str]:
    for policy in of_kind(manifests, "BackendTLSPolicy"):
        for reference in policy["spec"]["validation"]["caCertificateRefs"]:
            yield data_of(manifests, reference["name"], policy["metadata"]["namespace"])["ca.crt"]


def test_the_gateways_authority_is_a_certificate_without_a_key(kubectl: Path) -> None:
    from cryptography import x509

    (text,) = _ca_files(render(kubectl, "envoy-gateway"))
    (authority,) = x509.load_pem_x509_certificates(text.encode())
    assert "CHANGE" in authority.subject.rfc4514_string()
    assert "PRIVATE" not in text


EXAMPLES = re.compile(
    r"\bhatshop\b|\bpayments\b|registry\.example\.com|sha256:0{64}|kubernetes\.io/metadata\.name: |k8s-app: kube-dns"
    r"|app\.kubernetes\.io/name: (?:prometheus|opentelemetry-collector)\b|(?<!svc\.)\bcluster\.local\b"
    r"|^namespace: (?!zta-system)|secretName: "
)
"""What is of the example shop or of other teams' namespaces, and so is another name for whoever installs this."""


def test_grep_change_finds_all_that_must_be_changed() -> None:
    """Each such line says so, or the comment above it does."""
    unmarked = []
    for file in sorted(K8S.rglob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        if file.parent.name == "monitoring" or lines[0].startswith("# CHANGE"):
            continue  # nothing there is an example's; all of it is
        comment = ""
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                comment = line
            elif EXAMPLES.search(line) and "CHANGE" not in line + comment:
                unmarked.append(f"{file.relative_to(K8S)}:{number}: {line.strip()}")
    assert unmarked == []
