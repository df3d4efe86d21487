"""The administrators in k8s/: settings that load, rules that pass, and decision points that can follow them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.fakes.check import RecordingSink
from tests.fakes.snapshots import FixedSnapshot
from tests.k8s.manifests import containers_of, mounted, of_kind, pod_of, render
from tests.k8s.test_contents import CONFIG, Installed, environment_of
from tests.support.pki import NOW, Signer, jwks
from zta_authz.access.lifecycle import OperationRefused
from zta_authz.administrator.operator_authorization import Call, OperatorAuthorization, operator_options
from zta_authz.administrator.store.open import parse_address
from zta_authz.cli.main import main
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.servers.listeners import Endpoint
from zta_authz.settings.following_model import host_and_port

if TYPE_CHECKING:
    from pathlib import Path

OVERLAYS = ["istio-administrator", "istio-spire-administrators"]
ISSUER = "https://login.example.com"


class Administered(Installed):
    """The administrator of an overlay, its settings loaded as its container would. `decision_point` follows it."""

    def __init__(self, kubectl: Path, overlay: str, folder: Path) -> None:
        self.manifests = render(kubectl, overlay)
        (self.workload,) = of_kind(self.manifests, "StatefulSet")
        (self.container,) = containers_of(self.workload)
        self.files = mounted(self.manifests, self.workload, self.container)
        self.environment = environment_of(self.workload, self.container)
        self.config = folder / "administrator.yaml"
        self.config.write_text(self.files[CONFIG]["config.yaml"])
        self.folder = folder
        self.decision_point = Installed(kubectl, overlay, folder)


@pytest.fixture(params=OVERLAYS)
def administered(kubectl: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Administered:
    return Administered(kubectl, request.param, tmp_path)


def test_it_starts_with_the_mounted_settings_and_they_load(administered: Administered) -> None:
    assert administered.container["args"] == ["administer", "--config", f"{CONFIG}/config.yaml"]
    settings = administered.settings
    assert settings.semantics == "strict"
    assert not settings.insecure
    assert settings.audit.on_full == "deny"


def test_decision_points_follow_it_and_each_side_expects_the_other(administered: Administered) -> None:
    views, follower = administered.settings.administrator.views, administered.decision_point.settings.administrator
    assert follower.follow is not None
    assert follower.tls is not None
    host, port = host_and_port(follower.follow)
    (service,) = [
        each for each in of_kind(administered.manifests, "Service") if host.startswith(f"{each['metadata']['name']}.")
    ]
    namespace = service["metadata"]["namespace"]
    assert host == f"{service['metadata']['name']}.{namespace}.svc"
    assert service["spec"]["clusterIP"] == "None", "every administrator has an address"
    assert [each["port"] for each in service["spec"]["ports"]] == [port]
    assert [Endpoint.parse(each).port for each in views.listen] == [port]
    for workload, listed in (
        (administered.workload, follower.tls.spiffe_ids),
        (administered.decision_point.workload, views.allowed_spiffe_ids),
    ):
        account = pod_of(workload)["serviceAccountName"]
        assert listed == (f"spiffe://cluster.local/ns/{workload['metadata']['namespace']}/sa/{account}",)


def test_every_file_of_the_settings_is_in_a_mount(administered: Administered) -> None:
    settings = administered.settings
    section = settings.administrator
    assert section.access_log.checkpoint is not None
    files = [section.access_log.path, section.access_log.checkpoint.path, section.access_log.checkpoint.key_file]
    files += [section.store.password_file, section.store.ca_file, *(bundle.file for bundle in settings.bundles)]
    assert settings.tls is not None
    files += [settings.tls.cert_file, settings.tls.key_file, settings.tls.client_ca_file]
    files.append((settings.workload_api.socket or "").removeprefix("unix:"))
    address = parse_address(section.store.url, "administrator.store.url")
    files.append(getattr(address, "path", ""))
    folders = {file.rpartition("/")[0] for file in files if file}
    assert folders <= set(administered.mounts)
    written = {section.access_log.path, section.access_log.checkpoint.path}
    assert {administered.mounts[file.rpartition("/")[0]]["name"] for file in written} == {"state"}
    (claim,) = administered.workload["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"


def test_one_administrator_has_a_file_and_two_share_a_store(kubectl: Path, tmp_path: Path) -> None:
    one = Administered(kubectl, "istio-administrator", tmp_path)
    assert one.workload["spec"]["replicas"] == 1
    assert one.settings.administrator.store.url.startswith("sqlite:")
    two = Administered(kubectl, "istio-spire-administrators", tmp_path)
    assert two.workload["spec"]["replicas"] == 2
    assert two.settings.administrator.store.url.startswith("valkeys:")
    budgets = [
        each for each in of_kind(two.manifests, "PodDisruptionBudget") if each["metadata"]["name"] != "zta-authz"
    ]
    assert [each["spec"]["maxUnavailable"] for each in budgets] == [1]


def test_network_policies_open_the_ports_that_are_used(administered: Administered) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(administered.manifests, "NetworkPolicy")}
    ports = administered.ports
    for name, direction, port in (
        ("decision-points-follow", "ingress", ports["grpc-views"]),
        ("follow-the-administrator", "egress", ports["grpc-views"]),
        ("people-ask-for-access", "ingress", ports["https-access"]),
        ("prometheus-scrapes-administrator", "ingress", ports["http-health"]),
    ):
        assert policies[name][direction][0]["ports"] == [{"protocol": "TCP", "port": port}]
    section = administered.settings.administrator
    assert [Endpoint.parse(each).port for each in section.operations.http] == [ports["https-access"]]
    store = parse_address(section.store.url, "administrator.store.url")
    if hasattr(store, "port"):
        assert policies["administrator-to-store"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": store.port}]


def test_its_rules_pass_the_check(administered: Administered, capsys: pytest.CaptureFixture[str]) -> None:
    folders = administered.policies()
    assert len(folders) == 5
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ZTA_")]:
            patch.delenv(name)
        for name, value in administered.environment.items():
            patch.setenv(name, value)
        assert main(["check", "--config", str(administered.config), *folders]) == 0, capsys.readouterr().err


def test_both_planes_read_the_same_documents_of_teams(administered: Administered) -> None:
    of_decisions = set(administered.decision_point.settings.policies)
    assert set(administered.settings.policies) - of_decisions == {"/etc/zta-authz/policies/administrator"}
    assert of_decisions <= set(administered.settings.policies)


@pytest.mark.parametrize(
    ("groups", "calls"),
    [
        ([], {"POST /access/requests", "GET /access/grants", "POST /access/grants/1/end"}),
        (["approvers"], {"POST /access/requests", "POST /access/requests/1/approve", "POST /access/grants/1/review"}),
        (["security"], {"POST /revocations", "POST /access/grants/1/revoke", "POST /revocations/1/lift"}),
    ],
)
def test_the_example_policies_give_each_group_its_own_operations(
    administered: Administered, groups: list[str], calls: set[str]
) -> None:
    signer = Signer()
    sources = [
        SourceText(
            f"{path}/{name}",
            text.replace("jwksUri: https://login.example.com/.well-known/jwks.json", f"jwks: '{jwks([signer])}'"),
        )
        for path in administered.settings.policies
        for name, text in administered.files[path].items()
    ]
    snapshot = compile_snapshot(sources, operator_options(administered.settings.options()))
    desk = OperatorAuthorization(FixedSnapshot(snapshot), RecordingSink(), lambda: NOW)
    token = signer.token(iss=ISSUER, sub="ann", aud="zta-admin", groups=groups, auth_time=int(NOW) - 60)
    every = {
        "POST /access/requests", "GET /access/grants", "POST /access/grants/1/end", "POST /access/requests/1/approve",
        "POST /access/grants/1/review", "POST /access/grants/1/revoke", "POST /revocations", "POST /revocations/1/lift",
    }  # fmt: skip
    common = {"POST /access/requests", "GET /access/grants", "POST /access/grants/1/end"}
    review = {"POST /access/grants/1/review"} if groups else set()
    allowed = set()
    for call in every:
        method, _, path = call.partition(" ")
        try:
            desk.authorize(Call(method, path, "", f"Bearer {token}"))
        except OperationRefused:
            continue
        allowed.add(call)
    assert allowed == calls | common | review
