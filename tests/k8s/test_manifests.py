"""Every manifest is what its API takes: Kubernetes' own schemas, and for other kinds ours, written from their documentation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.k8s.manifests import K8S, OVERLAYS, SCHEMAS, Manifest, called, kustomize, render, schema_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLDEST, NEWEST = "1.30", "1.37"
"""Of Kubernetes: `preStop.sleep` and sidecars among the init containers need 1.30."""
GROUPS_OF_OTHERS = ("istio.io", "spiffe.io", "envoyproxy.io", "gateway.networking.k8s.io", "coreos.com")
NOT_FOR_KUSTOMIZE = {
    "istio/meshconfig.values.yaml",
    "monitoring/rules.yaml",
    "monitoring/rules_test.yaml",
    "monitoring/rules_days_test.yaml",
}


def is_ours(manifest: Manifest) -> bool:
    """True for a kind that Kubernetes itself has no schema for."""
    return str(manifest["apiVersion"]).partition("/")[0].endswith(GROUPS_OF_OTHERS)


def check(manifest: Manifest) -> None:
    """Raises ValidationError, SchemaNotFoundError or FileNotFoundError: a kind that nobody knows is a fault, too."""
    if is_ours(manifest):
        jsonschema.validate(manifest, schema_for(manifest["kind"]), cls=jsonschema.Draft202012Validator)
        return
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(manifest, version, strict=True)


def is_refused(manifest: Manifest) -> bool:
    """True if the schema finds a fault."""
    try:
        check(manifest)
    except jsonschema.ValidationError:
        return True
    return False


@pytest.fixture(scope="module")
def distinct(kubectl: Path) -> dict[str, Manifest]:
    """Everything that is rendered, each different manifest once."""
    found = {}
    for overlay in OVERLAYS:
        for manifest in render(kubectl, overlay):
            found[json.dumps(manifest, sort_keys=True)] = manifest
    return found


def test_every_manifest_is_what_its_api_takes(distinct: dict[str, Manifest]) -> None:
    assert len(distinct) > 50
    for manifest in distinct.values():
        try:
            check(manifest)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{called(manifest)}: {error.json_path}: {error.message}")


def _kinds(distinct: dict[str, Manifest]) -> dict[str, Manifest]:
    return {each["kind"]: each for each in distinct.values()}


def test_a_field_that_does_not_exist_is_refused_in_every_kind(distinct: dict[str, Manifest]) -> None:
    for kind, manifest in _kinds(distinct).items():
        broken = json.loads(json.dumps(manifest))
        broken.get("spec", broken)["failOpn"] = False
        assert is_refused(broken), f"nobody noticed in a {kind}"


def test_a_missing_or_mistyped_field_is_refused_in_every_kind_of_others(distinct: dict[str, Manifest]) -> None:
    for manifest in (each for each in _kinds(distinct).values() if is_ours(each)):
        for broken in _mistyped(manifest):
            assert is_refused(broken), f"nobody noticed in {called(manifest)}"


def _mistyped(manifest: Manifest) -> Iterator[Manifest]:
    for field in manifest["spec"]:
        broken = json.loads(json.dumps(manifest))
        broken["spec"][field] = 7.5
        yield broken
    for field in ("metadata", "spec"):
        broken = json.loads(json.dumps(manifest))
        del broken[field]
        yield broken


def test_a_kind_that_nobody_knows_is_a_failure() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check({"apiVersion": "apps/v1", "kind": "Deploymint", "metadata": {"name": "x"}})
    with pytest.raises(FileNotFoundError):
        check({"apiVersion": "networking.istio.io/v1", "kind": "Sidecars", "metadata": {"name": "x"}})


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_our_schemas_are_schemas_and_leave_no_room_for_unknown_fields(path: Path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert "from " in schema["description"]


def test_every_schema_is_used(distinct: dict[str, Manifest]) -> None:
    used = {each["kind"] for each in distinct.values() if is_ours(each)}
    in_rules = {"RequestAuthentication"}
    assert {path.stem for path in SCHEMAS.glob("*.json")} == used | in_rules | {"MeshConfigValues"}


def test_the_mesh_configuration_is_what_istio_takes() -> None:
    values = yaml.safe_load((K8S / "istio" / "meshconfig.values.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(values, schema_for("MeshConfigValues"))
    values["meshConfig"]["extensionProviders"][0]["envoyExtAuthzGrpc"]["failopen"] = False
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema_for("MeshConfigValues"))


def test_kustomize_refuses_a_broken_overlay(kubectl: Path, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]\n")
    with pytest.raises(AssertionError, match=r"gone\.yaml"):
        kustomize(kubectl, tmp_path)


def _named(value: Any) -> Iterator[str]:
    """Every text in a kustomization that may be a path."""
    if isinstance(value, str):
        yield value.rpartition("=")[2]
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _reached(folder: Path, seen: set[Path]) -> None:
    file = folder / "kustomization.yaml"
    if file in seen:
        return
    seen.add(file)
    for text in _named(yaml.safe_load(file.read_text(encoding="utf-8"))):
        path = (folder / text).resolve() if "\n" not in text and len(text) < 200 else folder / "none"
        if path.is_file():
            seen.add(path)
        elif (path / "kustomization.yaml").is_file():
            _reached(path, seen)


def test_every_file_is_part_of_an_overlay_or_checked_by_itself() -> None:
    reached: set[Path] = set()
    for overlay in OVERLAYS:
        _reached(K8S / "overlays" / overlay, reached)
    files = {path for path in K8S.rglob("*") if path.is_file()}
    assert {str(path.relative_to(K8S)) for path in files - reached} == NOT_FOR_KUSTOMIZE
