"""docs/kubernetes.md names what is there. That its commands, paths and targets exist is asked of all pages by tests/docs."""

from __future__ import annotations

import re

from tests.k8s.manifests import K8S, OVERLAYS, ROOT
from zta_authz.errors import Reason

TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", TEXT, flags=re.DOTALL))


def test_every_overlay_is_explained() -> None:
    assert [name for name in OVERLAYS if f"[`overlays/{name}`](../k8s/overlays/{name})" not in TEXT] == []


def test_every_object_of_a_command_is_in_the_manifests() -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in K8S.rglob("*.yaml"))
    named = re.findall(r"(?:securitypolicy|envoypatchpolicy|authorizationpolicy|deploy/|hpa) ?([a-z-]+)", BLOCKS)
    assert len(named) > 4
    assert [name for name in named if f"name: {name}" not in written and name != "frontend"] == []


def test_the_image_is_built_for_two_architectures_with_what_is_in_it() -> None:
    assert "--platform linux/amd64,linux/arm64" in BLOCKS
    assert "--sbom=true" in BLOCKS
    assert "--target sbom" in BLOCKS


def test_every_reason_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:peer|deny|no)_[a-z_]+)`", TEXT))
    assert named
    assert named - {str(reason) for reason in Reason} == set()


def test_what_is_to_be_changed_is_marked() -> None:
    for folder in ("base", "components", "overlays", "istio"):
        marked = [path for path in (K8S / folder).rglob("*.yaml") if "CHANGE" in path.read_text(encoding="utf-8")]
        assert marked or folder == "istio"
