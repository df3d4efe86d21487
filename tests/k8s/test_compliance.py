"""`zta-authz compliance` on what is rendered from k8s/, as it is and with each thing broken that a check must notice."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.k8s.broken_installations import BROKEN, IN_THE_MESH, swap
from tests.k8s.manifests import K8S, OVERLAYS, kustomize
from zta_authz.cli.compliance.catalogue import CHECKS, REQUIREMENTS
from zta_authz.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

MESH = K8S / "istio" / "meshconfig.values.yaml"
AT = "2026-11-21T12:00:00Z"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Report:
    """What the command said."""

    status: int
    fields: dict[str, Any]

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {each["id"]: each for each in self.fields["checks"]}

    def those(self, status: str) -> set[str]:
        return {name for name, each in self.checks.items() if each["status"] == status}


class Reporter:
    """Runs the command on overlays, whole or broken, with images that have been built."""

    def __init__(self, kubectl: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._kubectl = kubectl
        self._folder = folder
        self._capsys = capsys

    def render(self, overlay: str) -> str:
        return _DIGEST.sub(f"sha256:{'a1' * 32}", _rendered(self._kubectl, overlay))

    def report(self, text: str, mesh: str = MESH.read_text(encoding="utf-8"), at: str = AT) -> Report:
        (self._folder / "rendered.yaml").write_text(text)
        (self._folder / "mesh.yaml").write_text(mesh)
        self._capsys.readouterr()
        status = main(["compliance", str(self._folder), "--output", "json", "--at", at])
        return Report(status, json.loads(self._capsys.readouterr().out))


_CACHE: dict[str, str] = {}


def _rendered(kubectl: Path, overlay: str) -> str:
    if overlay not in _CACHE:
        _CACHE[overlay] = kustomize(kubectl, K8S / "overlays" / overlay)
    return _CACHE[overlay]


@pytest.fixture
def reporter(kubectl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Reporter:
    return Reporter(kubectl, tmp_path, capsys)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_missing_in_what_is_shipped_but_the_image(reporter: Reporter, overlay: str) -> None:
    whole = reporter.report(reporter.render(overlay))
    assert (whole.status, whole.those("missing")) == (0, set())
    shipped = reporter.report(reporter.render(overlay).replace("a1" * 32, "0" * 64))
    assert (shipped.status, shipped.those("missing")) == (1, {"images-pinned"})


def test_what_the_istio_overlay_cannot_show_is_said_and_not_claimed(reporter: Reporter) -> None:
    report = reporter.report(reporter.render("istio"))
    assert report.those("cannot be seen here") == {"trust-anchored", "network-default-deny", "log-tamper-evident"}
    assert all(each["notShownByManifests"] for each in report.fields["requirements"])
    assert "not a certification" in report.fields["notice"]


def test_each_requirement_has_evidence_in_the_istio_overlay(reporter: Reporter) -> None:
    report = reporter.report(reporter.render("istio"))
    assert {each["id"]: each["status"] for each in report.fields["requirements"]} == {
        each.id: "satisfied" for each in REQUIREMENTS
    }


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_missed_by_the_check_for_it(reporter: Reporter, name: str) -> None:
    overlay, check, break_it = BROKEN[name]
    text = break_it(reporter.render(overlay))
    if name == "nobody's workload":
        text = re.sub(r"^    x_workloads:\n(?:      .*\n)+", "", text, flags=re.MULTILINE)
    report = reporter.report(text)
    assert check in report.those("missing")
    assert report.status == 1
    gap = report.checks[check]["missing"][0]
    assert gap["message"]
    assert gap["mend"]


@pytest.mark.parametrize("name", IN_THE_MESH)
def test_what_is_broken_in_the_mesh_configuration_is_missed(reporter: Reporter, name: str) -> None:
    check, break_it = IN_THE_MESH[name]
    mesh = MESH.read_text(encoding="utf-8")
    report = reporter.report(reporter.render("istio"), break_it(mesh))
    assert report.those("missing") == {check}
    assert report.checks[check]["missing"][0]["source"].endswith("mesh.yaml")


def test_an_authority_that_ends_soon_or_has_ended_is_missed(reporter: Reporter) -> None:
    certificate = (K8S / "overlays" / "envoy-gateway" / "ca.crt").read_text(encoding="utf-8")
    root = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio-ca-root-cert", "namespace": "hatshop"},
        "data": {"root-cert.pem": certificate},
    }
    text = reporter.render("istio-sidecar") + "\n---\n" + json.dumps(root)
    statuses = {}
    for at in ("2055-01-01T00:00:00Z", "2055-12-20T00:00:00Z", "2056-02-01T00:00:00Z"):
        statuses[at[:7]] = reporter.report(text, at=at).checks["trust-anchored"]["status"]
    assert statuses == {"2055-01": "satisfied", "2055-12": "missing", "2056-02": "missing"}


def test_every_check_is_broken_at_least_once() -> None:
    noticed = {check for _, check, _ in BROKEN.values()} | {check for check, _ in IN_THE_MESH.values()}
    assert noticed | {"trust-anchored"} == {each.id for each in CHECKS}


def test_a_policy_that_asks_somebody_else_is_no_evidence(reporter: Reporter) -> None:
    mesh = MESH.read_text(encoding="utf-8")
    other = swap("service: zta-authz.zta-system", "service: oauth2-proxy.login")(mesh)
    assert "all-requests-asked" in reporter.report(reporter.render("istio"), other).those("missing")


def test_a_patch_for_other_workloads_is_no_evidence(reporter: Reporter) -> None:
    narrow = swap("spec:\n  configPatches:", "spec:\n  workloadSelector: {labels: {app: x}}\n  configPatches:")
    report = reporter.report(narrow(reporter.render("istio")))
    assert {"evidence-sent", "same-request", "sessions-bounded"} <= report.those("missing")


def test_the_defaults_of_settings_that_are_not_given_are_not_claimed(reporter: Reporter) -> None:
    text = re.sub(r"name: zta-authz-config-\w+", "name: elsewhere", reporter.render("istio"), count=1)
    report = reporter.report(text)
    assert {"decisions-known", "default-deny", "authorizer-mtls", "decision-log"} <= report.those("cannot be seen here")
    assert "callers-verified" not in report.those("satisfied")


def test_without_the_mesh_configuration_its_provider_is_not_judged(reporter: Reporter) -> None:
    report = reporter.report(reporter.render("istio"), mesh="meshConfig: {}\n")
    assert {"fail-closed", "answer-in-time"} <= report.those("cannot be seen here")


def test_evidence_stands_in_the_line_that_is_named(reporter: Reporter) -> None:
    text = reporter.render("istio")
    lines = text.split("\n")
    report = reporter.report(text)
    places = [
        (found["field"], found["line"], found["value"])
        for check in report.fields["checks"]
        for found in check["satisfied"]
        if found["line"] and (found["source"] or "").endswith("rendered.yaml")
    ]
    assert len(places) > 30
    exact = [each for each in places if each[2] in lines[each[1] - 1]]
    assert {"false", "true", "ISTIO_MUTUAL", "required", "restricted"} <= {value.split()[0] for _, _, value in exact}
    (rule,) = [line for field, line, _ in places if field.startswith("IssuerPolicy istio-system/login")]
    assert "zta.dev/v1" in lines[rule - 1]


def test_the_plain_tree_is_refused_with_the_command_that_renders_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compliance", str(K8S)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"`kubectl kustomize \S+/overlays/[a-z-]+ \| zta-authz compliance -`", said.err)
