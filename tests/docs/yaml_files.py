"""The check for each YAML file of docs/, envoy/ and k8s/, and how files are broken to test the checks."""

from __future__ import annotations

import fnmatch
import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)

from envoy.demo.envoyproc import NOT_FOUND, find_envoy, validate
from tests.docs import checks
from tests.docs.fences import ROOT
from tests.k8s.manifests import (
    K8S,
    OVERLAYS,
    Manifest,
    authorizers,
    containers_of,
    find_tool,
    kustomize,
    pod_of,
    render,
    schema_for,
)
from tests.k8s.test_contents import environment_of
from tests.k8s.test_manifests import _reached, check as check_manifest
from zta_authz.cli.envoy_config import bootstrap as _every_message_that_we_use  # noqa: F401  `from_dict` knows what is imported
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FREE = {
    "labels",
    "fields",
    "annotations",
    "matchLabels",
    "matchExpressions",
    "data",
    "metadata",
    "labelSelector",
    "headers",
    "limits",
    "requests",
    "typed_extension_protocol_options",
}
"""Below these any key may stand, or any that the writer likes."""


class Skip(Exception):
    """The check needs a program that is not installed."""


def _tool(name: str) -> Path:
    tool = find_tool(name)
    if tool is None:
        raise Skip(f"no {name}: run `make tools`")
    return tool


def _policies(file: Path, text: str, folder: Path) -> None:
    """`zta-authz check`, and Istio's own schema where Istio reads it too."""
    checks.policies(text, folder)
    if file.is_relative_to(K8S):
        for document in yaml.safe_load_all(text):
            if document["apiVersion"].startswith("security.istio.io/"):
                jsonschema.validate(document, schema_for(document["kind"]))


def _policy_tests(file: Path, text: str, folder: Path) -> None:
    """`zta-authz test`, beside the policies it names."""
    shutil.copytree(file.parent, folder / "copy")
    (folder / "copy" / file.name).write_text(text, encoding="utf-8")
    status, result = checks.run("test", str(folder / "copy" / file.name))
    assert status == 0, result


def _envoy(file: Path, text: str, _folder: Path) -> None:
    """What `zta-authz envoy-config` prints, word for word; tests/e2e and tests/k8s give it to the real Envoy."""
    style = "mtls" if "mtls-tcp" in file.name else "sidecar"
    status, result = checks.run("envoy-config", "--style", style, "--output", "json")
    assert status == 0, result
    assert Bootstrap.from_dict(yaml.safe_load(text)) == Bootstrap.from_dict(json.loads(result))


def _validated_by_envoy(_file: Path, text: str, folder: Path) -> None:
    """Envoy itself takes it."""
    binary = find_envoy()
    if binary is None:
        raise Skip(NOT_FOUND)
    (folder / "envoy.yaml").write_text(text, encoding="utf-8")
    assert validate(binary, folder / "envoy.yaml") == ""


def _sidecars_envoy(_file: Path, text: str, _folder: Path) -> None:
    """The same for pods, which have addresses of either family, and certificates that are renewed."""
    status, result = checks.run("envoy-config", "--style", "sidecar", "--listen", "[::]:8443", "--output", "json")
    assert status == 0, result
    expected = json.loads(result)
    expected["node"] = {"id": "sidecar", "cluster": "sidecar"}
    (chain,) = expected["static_resources"]["listeners"][0]["filter_chains"]
    tls = chain["transport_socket"]["typed_config"]["common_tls_context"]
    for name in [name for name in tls if "certificate" in name or "validation" in name]:
        del tls[name]
    tls["tls_certificate_sds_secret_configs"] = [_secret("server")]
    tls["validation_context_sds_secret_config"] = _secret("clients")
    assert Bootstrap.from_dict(yaml.safe_load(text)) == Bootstrap.from_dict(expected)


def _secret(name: str) -> dict[str, Any]:
    source = {"path": f"/etc/envoy-config/sds-{name}.yaml"}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _secrets(_file: Path, text: str, _folder: Path) -> None:
    """tests/k8s gives it to the real Envoy; here each field must be one that Envoy's secrets have."""
    (secret,) = yaml.safe_load(text)["resources"]
    assert secret.pop("@type").endswith(".tls.v3.Secret")
    assert secret.pop("name") in {"server", "clients"}
    ((kind, fields),) = secret.items()
    known = {
        "tls_certificate": {"certificate_chain", "private_key", "watched_directory"},
        "validation_context": {"trusted_ca", "watched_directory", "trust_chain_verification"},
    }
    assert set(fields) == known[kind]
    for source in (value for value in fields.values() if isinstance(value, dict)):
        assert set(source) <= {"filename", "path"}
        assert all(path.startswith("/etc/envoy/tls") for path in source.values())


def _overlay_of(file: Path) -> str:
    for overlay in OVERLAYS:
        seen: set[Path] = set()
        _reached(K8S / "overlays" / overlay, seen)
        if file in seen:
            return overlay
    raise AssertionError(f"{file} is part of no overlay")


def _settings(file: Path, text: str, folder: Path) -> None:
    """They load, with the environment that the first overlay with them gives."""
    manifests = render(_tool("kubectl"), _overlay_of(file))
    ((workload, container),) = authorizers(manifests)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    load_settings(str(folder / "config.yaml"), environment_of(workload, container))


def _outline(manifest: Manifest) -> tuple[str, ...]:
    """Its kind, and the names in its pod: a patch whose list has lost its key empties the list, which no schema minds."""
    if manifest["kind"] not in ("Deployment", "StatefulSet"):
        return (manifest["kind"],)
    named = [*containers_of(manifest), *pod_of(manifest).get("volumes", ())]
    for container in containers_of(manifest):
        named += [*container.get("env", ()), *container.get("volumeMounts", ())]
    return (manifest["kind"], *(each["name"] for each in named))


def _kustomized(file: Path, text: str, folder: Path) -> None:
    """The first overlay with it renders, to what its APIs take, and to objects and containers as before."""
    kubectl, overlay = _tool("kubectl"), _overlay_of(file)
    shutil.copytree(K8S, folder / "k8s")
    (folder / file.relative_to(ROOT)).write_text(text, encoding="utf-8")
    before = render(kubectl, overlay)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    now = [
        manifest
        for manifest in yaml.load_all(kustomize(kubectl, folder / "k8s" / "overlays" / overlay), Loader=loader)
        if manifest
    ]
    known = {json.dumps(manifest, sort_keys=True) for manifest in before}
    for manifest in now:
        if json.dumps(manifest, sort_keys=True) not in known:
            check_manifest(manifest)
    assert sorted(map(_outline, now)) == sorted(map(_outline, before))


def _promtool(file: Path, text: str, folder: Path) -> None:
    """promtool takes the rules, and the stories come out as told."""
    promtool = str(_tool("promtool"))
    for name in ("rules.yaml", "rules_test.yaml", "rules_days_test.yaml"):
        (folder / name).write_text((file.parent / name).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / file.name).write_text(text, encoding="utf-8")
    story = file.name if "_test" in file.name else "rules_test.yaml"
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", story]):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


_PATCHED: dict[str, Any] = {"HTTP_FILTER": HttpFilter, "NETWORK_FILTER": Filter, "CLUSTER": Cluster}


def _patches(manifest: dict[str, Any]) -> None:
    """What is written into Envoy's configuration has fields that Envoy knows; schemas of Kubernetes end before it."""
    spec = manifest["spec"]
    for patch in spec.get("configPatches", ()):
        _PATCHED[patch["applyTo"]].from_dict(patch["patch"]["value"])
    for patch in spec.get("jsonPatches", ()):
        value = patch["operation"]["value"]
        for name in reversed(patch["operation"]["path"].strip("/").split("/")):
            value = {name: value}
        of_manager = "http_connection_manager" in patch["operation"]["jsonPath"]
        (HttpConnectionManager if of_manager else ExtAuthz).from_dict(value)


def _manifests(file: Path, text: str, folder: Path) -> None:
    """Kubernetes' own schemas, or ours of other kinds; the namespace may come from the kustomization."""
    kustomization = yaml.safe_load((file.parent / "kustomization.yaml").read_text(encoding="utf-8"))
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    for document in documents:
        if "namespace" in kustomization and document["kind"] != "Namespace":
            document["metadata"].setdefault("namespace", kustomization["namespace"])
        if document["kind"] in {"EnvoyFilter", "EnvoyPatchPolicy"}:
            _patches(document)
    checks.manifests(yaml.safe_dump_all(documents), folder)


REGISTRY: dict[str, Callable[[Path, str, Path], None]] = {
    "docs/examples/policies/*.yaml": _policies,
    "docs/examples/trust/*.yaml": _policies,
    "docs/examples/requests/*.yaml": lambda _file, text, folder: checks.request(text, folder),
    "docs/examples/*_test.yaml": _policy_tests,
    "envoy/bootstrap-*.yaml": _envoy,
    "envoy/upstream-jwt.yaml": _validated_by_envoy,
    "envoy/demo/policies/*.yaml": _policies,
    "k8s/*kustomization.yaml": _kustomized,
    "k8s/*-patch.yaml": _kustomized,
    "k8s/policies/*.yaml": _policies,
    "k8s/*/config.yaml": _settings,
    "k8s/components/sidecar-envoy/envoy.yaml": _sidecars_envoy,
    "k8s/components/sidecar-envoy/sds-*.yaml": _secrets,
    "k8s/istio/meshconfig.values.yaml": lambda _file, text, folder: checks.mesh(text, folder),
    "k8s/monitoring/rules*.yaml": _promtool,
    "k8s/*.yaml": _manifests,
}
"""The first pattern that fits counts; the last one is for manifests, and knows only kinds that there is a schema for."""


def files() -> list[Path]:
    """Return all YAML files of the three folders."""
    return sorted(
        path
        for folder in ("docs", "envoy", "k8s")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".yaml", ".yml"} and path.is_file()
    )


def check_of(file: Path) -> Callable[[Path, str, Path], None] | None:
    """Return the check of the file; None if there is none."""
    name = str(file.relative_to(ROOT))
    return next((check for pattern, check in REGISTRY.items() if fnmatch.fnmatch(name, pattern)), None)


@dataclass(frozen=True, slots=True)
class Field:
    """A key in a text: where it ends, and the keys above it."""

    end: int
    path: tuple[str, ...]


def fields(text: str) -> list[Field]:
    """Every key that a reader with a schema must know."""
    fields_of_file: list[Field] = []
    for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
        fields_of_file.extend(_fields(node, ()))
    return fields_of_file


def _fields(node: Any, path: tuple[str, ...]) -> Iterator[Field]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _fields(item, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not FREE & set(path) and "/" not in key.value:  # with a slash, it is a label
                yield Field(key.end_mark.index, (*path, key.value))
            yield from _fields(value, (*path, key.value))


def misspelt(text: str, field: Field) -> str:
    """Return the text with an additional letter in that key."""
    end = field.end - 1 if text[field.end - 1] in "\"'" else field.end
    return f"{text[:end]}x{text[end:]}"
