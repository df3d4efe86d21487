"""Documents that apply to every workload: allowed namespaces and files, and the default scope."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import root
from tests.support.policies import policy
from zta_authz.cli import main
from zta_authz.errors import DocumentErrors
from zta_authz.model.options import DocumentScope, Options
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.errors import Fault
    from zta_authz.pdp.snapshot import Snapshot

SPECS: dict[str, dict[str, Any]] = {
    "TrustBundle": {"trustDomain": "evil.example", "x509Authorities": root().pem},
    "RevocationList": {"spiffeIds": [{"prefix": "spiffe://cluster.local/"}]},
    "IssuerPolicy": {"issuer": "spiffe://cluster.local", "requireKid": True},
    "ApiKeySet": {"clients": [{"name": "me", "keys": [{"hash": f"sha256:{'ab' * 32}"}]}]},
}
KINDS = pytest.mark.parametrize("kind", SPECS)


def document(kind: str, namespace: str | None = None, name: str = "d") -> str:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return json.dumps({"apiVersion": "zta.dev/v1", "kind": kind, "metadata": metadata, "spec": SPECS[kind]})


def compiled(scope: DocumentScope, *texts: str, source: str = "/p/team/x.yaml") -> Snapshot:
    options = Options(root_documents=scope)
    return compile_snapshot([SourceText(source, "\n---\n".join(texts))], options)


def faults(scope: DocumentScope, *texts: str, source: str = "/p/team/x.yaml") -> list[Fault]:
    try:
        compiled(scope, *texts, source=source)
    except DocumentErrors as error:
        return list(error.faults)
    return []


@KINDS
def test_a_document_in_another_namespace_is_a_fault_that_says_where_it_belongs(kind: str) -> None:
    scope = DocumentScope(namespaces=("istio-system", "security"))
    for namespace in ("shop", None):
        (fault,) = faults(scope, document(kind, namespace))
        assert f" {kind} is not allowed in namespace `{namespace or 'default'}`" in fault.message
        assert "`istio-system`, `security`" in fault.message
        assert "namespace: istio-system" in fault.hint
        assert (fault.source, fault.line) == ("/p/team/x.yaml", 1)
    for namespace in ("istio-system", "security"):
        assert faults(scope, document(kind, namespace)) == []


def test_the_hint_names_no_namespace_if_none_is_allowed() -> None:
    (fault,) = faults(DocumentScope(namespaces=()), document("IssuerPolicy", "istio-system"))
    assert fault.message == (
        "an IssuerPolicy is not allowed in namespace `istio-system`: it applies to every workload, and the settings "
        "allow no namespace"
    )
    assert fault.hint == "add this namespace to `root_documents.namespaces`"


@KINDS
def test_a_document_in_another_file_is_a_fault_whatever_namespace_it_claims(kind: str) -> None:
    scope = DocumentScope(namespaces=("istio-system",), paths=("/p/platform", "/p/one.yaml"))
    text = document(kind, "istio-system")
    for source in ("/p/team/x.yaml", "/p/platform2/x.yaml", "/p/platform.yaml", "/p/one.yaml2", "p/platform/x.yaml"):
        (fault,) = faults(scope, text, source=source)
        assert f" {kind} is not allowed in this file" in fault.message
    for source in ("/p/platform/x.yaml", "/p/platform/deep/x.yaml", "/p/one.yaml"):
        assert faults(scope, text, source=source) == []


@KINDS
def test_a_config_map_or_list_does_not_bypass_the_check(kind: str) -> None:
    scope = DocumentScope(paths=("/p/platform", "/p/one.yaml"))
    inner = document(kind, "istio-system")
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a.yaml": inner}}
    wrapped = (json.dumps(config_map), json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(inner)]}))
    for text in wrapped:
        assert [f" {kind} is not allowed in this file" in fault.message for fault in faults(scope, text)] == [True]
        assert faults(scope, text, source="/p/one.yaml") == []


def test_policies_in_the_root_namespace_must_come_from_those_files_too() -> None:
    """They apply to every workload too, and a document can claim any namespace."""
    scope = DocumentScope(paths=("/p/platform",))
    rooted, own = (json.dumps(policy("p", {}, namespace=name)) for name in ("istio-system", "shop"))
    (fault,) = faults(scope, rooted)
    assert fault.message.startswith("a document in the root namespace `istio-system` is not allowed in this file")
    assert faults(scope, own) == []
    assert faults(scope, rooted, source="/p/platform/x.yaml") == []


def test_the_default_scope_gives_one_warning_and_only_if_it_matters() -> None:
    scope = DocumentScope(chosen=False)
    both = compiled(scope, document("TrustBundle"), document("RevocationList"))
    assert [warning.message for warning in both.warnings] == [
        "TrustBundle `default/d` applies to every workload, and is accepted because `policies` names only one source"
    ]
    assert compiled(scope, document("TrustBundle", "istio-system")).warnings == ()
    assert compiled(scope, json.dumps(policy("p", {}))).warnings == ()
    assert compiled(DocumentScope(), document("TrustBundle")).warnings == ()


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("policies: [/p]", DocumentScope(chosen=False)),
        ("policies: [/p, /q]", DocumentScope(namespaces=("istio-system",))),
        ("policies: [/p, /q]\nroot_namespace: mesh", DocumentScope(namespaces=("mesh",))),
        ("policies: [/p, /q]\nroot_documents: {namespaces: ['*']}", DocumentScope()),
        ("policies: [/p]\nroot_documents: {namespaces: [a, b]}", DocumentScope(namespaces=("a", "b"))),
        ("policies: [/p, /q/]\nroot_documents: {paths: [/p/x/, /q]}", DocumentScope(paths=("/p/x", "/q"))),
        ("policies: [/p]\nroot_documents: {paths: []}", DocumentScope(paths=())),
    ],
)
def test_the_default_scope_depends_on_the_number_of_sources(tmp_path: Path, text: str, scope: DocumentScope) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    assert load_settings(str(tmp_path / "settings.yaml"), {}).options().root_documents == scope


def test_check_applies_namespaces_to_given_files_and_paths_only_to_files_of_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "team").mkdir()
    (tmp_path / "platform" / "a.yaml").write_text(document("TrustBundle", "istio-system"))
    (tmp_path / "team" / "b.yaml").write_text(document("RevocationList", "istio-system"))
    config = tmp_path / "settings.yaml"
    config.write_text(
        f"policies: [{tmp_path}/platform, {tmp_path}/team]\nroot_documents: {{paths: [{tmp_path}/platform]}}\n"
    )
    assert main(["check", "--config", str(config)]) == 2
    assert "a RevocationList is not allowed in this file" in capsys.readouterr().err
    assert main(["check", "--config", str(config), str(tmp_path / "platform"), str(tmp_path / "team")]) == 0
    assert "`root_documents.paths` is not applied to files" in capsys.readouterr().out
    (tmp_path / "team" / "b.yaml").write_text(document("RevocationList", "team"))
    assert main(["check", "--config", str(config), str(tmp_path / "platform"), str(tmp_path / "team")]) == 2
