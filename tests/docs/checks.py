"""Checks of blocks and files in the documentation. Each raises if its text is not valid."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from envoy.demo.certificates import CertificateAuthority
from tests.docs.fences import ROOT
from tests.k8s.manifests import schema_for
from tests.k8s.test_manifests import check as check_manifest
from zta_authz.cli.main import main
from zta_authz.cli.request_files import load_request
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = ROOT / "docs" / "decision-record.schema.json"
ANSWERS_OF_COMMANDS = {
    "CheckResult",
    "Explanation",
    "PolicyTestResult",
    "ReplayResult",
    "Faults",
    "ComplianceReport",
    "Status",
}
"""The kinds of JSON whose fields tests/docs/test_cli.py compares with real output."""
_PLACEHOLDER = re.compile(r"( *)-----BEGIN CERTIFICATE-----\s+\.\.\.(\s+-----END CERTIFICATE-----)?")


@cache
def _certificate() -> str:
    return CertificateAuthority("a placeholder's", "cluster.local").certificate.decode().strip()


def with_certificate(text: str) -> str:
    """Replace `...` in a certificate by a real one."""

    def filled(match: re.Match[str]) -> str:
        return "\n".join(match[1] + line for line in _certificate().splitlines())

    return _PLACEHOLDER.sub(filled, text)


def run(*arguments: str) -> tuple[int, str]:
    """Run a command in this process without settings in the environment. Returns its status and its output."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ZTA_")]:
            patch.delenv(name)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = main(list(arguments))
    return status, output.getvalue()


def policies(text: str, folder: Path, *options: str) -> None:
    """Check policies with `zta-authz check`, with both semantics."""
    file = folder / "policies.yaml"
    file.write_text(with_certificate(text), encoding="utf-8")
    for semantics in ("strict", "istio"):
        status, result = run("check", str(file), "--semantics", semantics, *options)
        assert status == 0, result


def settings(text: str, folder: Path) -> None:
    """Check that settings load."""
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    load_settings(str(file), {})


def request(text: str, folder: Path) -> None:
    """Check that `zta-authz explain` can read a request."""
    file = folder / "request.yaml"
    file.write_text(text, encoding="utf-8")
    load_request(str(file), binary=False)


def manifests(text: str, folder: Path) -> None:
    """Check manifests against their schemas, and settings and policies in ConfigMaps."""
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    assert documents
    for document in documents:
        check_manifest(document)
        for name, value in document.get("data", {}).items() if document["kind"] == "ConfigMap" else ():
            if name == "config.yaml":
                settings(value, folder)
            elif name.endswith(".yaml") and "kind:" in value:
                policies(value, folder)


def mesh(text: str, _folder: Path) -> None:
    """Check values of Istio's chart."""
    jsonschema.validate(yaml.safe_load(text), schema_for("MeshConfigValues"))


def written_json(text: str, _folder: Path) -> None:
    """Check that JSON is a decision record, or output of a command that another test compares."""
    value: Any = json.loads(text)
    if "decision_id" in value:
        jsonschema.validate(value, json.loads(SCHEMA.read_text(encoding="utf-8")))
    else:
        assert value.get("kind") in ANSWERS_OF_COMMANDS, "nothing checks this JSON"
