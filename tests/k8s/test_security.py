"""The security settings hold in every rendered workload, and the check of them sees each one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.k8s import posture
from tests.k8s.manifests import K8S, OVERLAYS, Manifest, containers_of, of_kind, pod_of, render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Break = Callable[[list[Manifest]], Any]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_wrong_with_what_is_rendered(kubectl: Path, overlay: str) -> None:
    assert posture.faults(render(kubectl, overlay)) == []


def _first(manifests: list[Manifest], kind: str) -> Manifest:
    return of_kind(manifests, kind)[0]


def _pod(manifests: list[Manifest]) -> dict[str, Any]:
    return pod_of(_first(manifests, "Deployment"))


def _containers(manifests: list[Manifest]) -> list[dict[str, Any]]:
    return containers_of(_first(manifests, "Deployment"))


def _authorizer(manifests: list[Manifest]) -> dict[str, Any]:
    return next(each for each in _containers(manifests) if each["name"] == "zta-authz")


def _in_pod(**changed: Any) -> Break:
    return lambda manifests: _pod(manifests).update(changed)


def _in_security(**changed: Any) -> Break:
    """In the last container only: one that is wrong is enough."""
    return lambda manifests: _containers(manifests)[-1]["securityContext"].update(changed)


def _without_deny(manifests: list[Manifest]) -> None:
    manifests[:] = [each for each in manifests if each["metadata"]["name"] != "default-deny"]


def _any_peer(manifests: list[Manifest]) -> None:
    next(each for each in of_kind(manifests, "NetworkPolicy") if "egress" in each["spec"])["spec"]["egress"] = [{}]


BROKEN: dict[str, tuple[Break, str]] = {
    "a token": (_in_pod(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "no word of a token": (lambda m: _pod(m).pop("automountServiceAccountToken"), "automountServiceAccountToken"),
    "a token by the account": (
        lambda m: _first(m, "ServiceAccount").update(automountServiceAccountToken=True),
        "ServiceAccount/",
    ),
    "the default account": (_in_pod(serviceAccountName="default"), "no ServiceAccount of its own"),
    "service links": (_in_pod(enableServiceLinks=True), "enableServiceLinks"),
    "the host's network": (_in_pod(hostNetwork=True), "hostNetwork"),
    "root by the pod": (lambda m: _pod(m)["securityContext"].update(runAsNonRoot=False), "runAsNonRoot"),
    "no seccomp by the pod": (lambda m: _pod(m)["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "a host path": (
        lambda m: _pod(m)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "volume x is of ['hostPath']",
    ),
    "root": (_in_security(runAsNonRoot=False), "runAsNonRoot"),
    "user 0": (_in_security(runAsUser=0), "runs as 0"),
    "a writable root": (_in_security(readOnlyRootFilesystem=False), "readOnlyRootFilesystem"),
    "a capability": (
        _in_security(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        "capabilities are not dropped",
    ),
    "undropped capabilities": (lambda m: _containers(m)[-1]["securityContext"].pop("capabilities"), "capabilities"),
    "escalation": (_in_security(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    "privilege": (_in_security(privileged=True), "privileged"),
    "no seccomp": (_in_security(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    "no security context": (lambda m: _containers(m)[0].pop("securityContext"), "runAsNonRoot"),
    "a tag": (lambda m: _containers(m)[0].update(image="registry.example.com/x:1"), "not named by digest"),
    "no requests": (lambda m: _containers(m)[0]["resources"].pop("requests"), "requests"),
    "no limit of memory": (lambda m: _containers(m)[0]["resources"]["limits"].pop("memory"), "limit of memory"),
    "no probe": (lambda m: _authorizer(m).pop("livenessProbe"), "livenessProbe is missing"),
    "a limit of CPU": (lambda m: _authorizer(m)["resources"]["limits"].update(cpu="1"), "a limit of CPU"),
    "writable policies": (
        lambda m: next(x for x in _authorizer(m)["volumeMounts"] if "policies" in x["mountPath"]).pop("readOnly"),
        "can be written to",
    ),
    "a subPath": (lambda m: _authorizer(m)["volumeMounts"][0].update(subPath="x"), "never updated"),
    "rights": (
        lambda m: m.append({"kind": "ClusterRoleBinding", "metadata": {"name": "x"}}),
        "ClusterRoleBinding/-/x: rights in the API",
    ),
    "a secret": (lambda m: m.append({"kind": "Secret", "metadata": {"name": "x"}}), "a Secret is committed"),
    "a baseline namespace": (
        lambda m: [
            each["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "baseline"})
            for each in of_kind(m, "Namespace")
        ],
        "does not enforce `restricted`",
    ),
    "no default deny": (_without_deny, "denies what is not named"),
    "egress to anywhere": (_any_peer, "names no peers or no ports"),
}


@pytest.mark.parametrize("overlay", ["istio", "sidecar"])
@pytest.mark.parametrize("name", BROKEN)
def test_each_setting_is_missed_when_it_is_broken(kubectl: Path, overlay: str, name: str) -> None:
    manifests = render(kubectl, overlay)
    break_it, expected = BROKEN[name]
    break_it(manifests)
    assert expected in "\n".join(posture.faults(manifests))


def test_permissive_mutual_tls_is_seen(kubectl: Path) -> None:
    manifests = render(kubectl, "istio")
    _first(manifests, "PeerAuthentication")["spec"]["mtls"]["mode"] = "PERMISSIVE"
    assert any("not STRICT" in fault for fault in posture.faults(manifests))


@pytest.mark.parametrize("change", [{"failOpen": True}, {"timeout": "10s"}])
def test_a_security_policy_that_fails_open_or_late_is_seen(kubectl: Path, change: dict[str, Any]) -> None:
    manifests = render(kubectl, "envoy-gateway")
    _first(manifests, "SecurityPolicy")["spec"]["extAuth"].update(change)
    assert len(posture.faults(manifests)) == 1


def test_an_envoy_filter_that_fails_open_or_does_not_say_is_seen(kubectl: Path) -> None:
    for value in (True, None):
        manifests = render(kubectl, "istio-sidecar")
        (config,) = posture._find(manifests, posture.EXT_AUTHZ)
        config["failure_mode_allow"] = value
        assert any("failure_mode_allow" in fault for fault in posture.faults(manifests))
    manifests = render(kubectl, "istio")
    (config,) = posture._find(manifests, posture.EXT_AUTHZ)
    config["failure_mode_allow"] = True
    assert any("failure_mode_allow" in fault for fault in posture.faults(manifests))


def test_an_envoy_configuration_that_fails_open_is_seen(kubectl: Path) -> None:
    manifests = render(kubectl, "sidecar")
    (holder,) = [each for each in of_kind(manifests, "ConfigMap") if "envoy.yaml" in each["data"]]
    holder["data"]["envoy.yaml"] = holder["data"]["envoy.yaml"].replace(
        "failure_mode_allow: false", "failure_mode_allow: true"
    )
    assert any("failure_mode_allow" in fault for fault in posture.faults(manifests))


def test_a_patch_that_lets_the_gateway_fail_open_is_seen(kubectl: Path) -> None:
    manifests = render(kubectl, "envoy-gateway")
    patches = _first(manifests, "EnvoyPatchPolicy")["spec"]["jsonPatches"]
    patches[0]["operation"] = {"op": "add", "path": "/failure_mode_allow", "value": True}
    assert any("failure_mode_allow" in fault for fault in posture.faults(manifests))


def test_istios_provider_fails_closed_and_in_time() -> None:
    values = yaml.safe_load((K8S / "istio" / "meshconfig.values.yaml").read_text(encoding="utf-8"))
    assert posture.provider_faults(values) == []
    entry = values["meshConfig"]["extensionProviders"][0]["envoyExtAuthzGrpc"]
    for name, value in (("failOpen", True), ("timeout", "600s"), ("statusOnError", "403")):
        kept, entry[name] = entry[name], value
        assert len(posture.provider_faults(values)) == 1
        entry[name] = kept
        del entry[name]
        assert len(posture.provider_faults(values)) == 1
        entry[name] = kept
