from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.compliance.installations import (
    POLICIES,
    SETTINGS,
    check_of,
    installation,
    line_of,
    report,
)
from zta_authz.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def test_settings_are_read_from_the_mounted_config_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = installation()
    evidence = check_of(report(tmp_path, capsys, text), "callers-verified")["satisfied"][0]
    assert evidence == {
        "source": str(tmp_path / "all.yaml"),
        "line": line_of(text, "verify_certificate"),
        "field": 'ConfigMap zta/settings: data["config.yaml"]: peer.verify_certificate',
        "value": "required",
    }


def test_policies_are_read_from_the_mounted_config_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = installation()
    (evidence,) = check_of(report(tmp_path, capsys, text), "dynamic-policy")["satisfied"]
    assert evidence["line"] == line_of(text, "- from: [{source")
    assert evidence["field"] == "AuthorizationPolicy shop/orders: spec.rules[0]"


def test_lines_of_a_quoted_value_are_located_by_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = SETTINGS.replace("\n", "\\n").replace('"', '\\"')
    start, _, rest = installation().partition("  config.yaml: |\n")
    text = f'{start}  config.yaml: "{quoted}"\n---{rest.partition("---")[2]}'
    evidence = check_of(report(tmp_path, capsys, text), "callers-verified")["satisfied"][0]
    assert (evidence["source"], evidence["line"]) == (f"{tmp_path / 'all.yaml'}[zta/settings/config.yaml]", 9)


def test_an_environment_variable_overrides_and_is_the_location(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace('ZTA_DRAIN_SECONDS, value: "5"', "ZTA_PEER__VERIFY_CERTIFICATE, value: never")
    (gap,) = check_of(report(tmp_path, capsys, text), "callers-verified")["missing"]
    assert gap["line"] == line_of(text, "ZTA_PEER__VERIFY_CERTIFICATE")
    assert gap["field"] == "Deployment zta/zta-authz: spec.template.spec.containers[0].env[0]"


def test_the_environment_of_the_command_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZTA_PEER__VERIFY_CERTIFICATE", "never")
    monkeypatch.setenv("ZTA_NO_SUCH_THING", "1")
    assert check_of(report(tmp_path, capsys, installation()), "callers-verified")["status"] == "satisfied"


def test_a_variable_with_an_external_value_is_reported_as_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "valueFrom: {secretKeyRef: {name: a, key: b}}"
    answer = report(tmp_path, capsys, installation().replace('value: "5"', secret))
    assert "ZTA_DRAIN_SECONDS" in check_of(answer, "decisions-known")["cannotBeSeen"][0]["message"]
    assert check_of(answer, "default-deny")["status"] == "cannot be seen here"


def test_a_container_without_arguments_has_settings_that_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace("        args: [serve, --config, /etc/zta/config.yaml]\n", "")
    answer = report(tmp_path, capsys, text)
    assert check_of(answer, "decisions-known")["status"] == "cannot be seen here"
    assert check_of(answer, "callers-verified")["status"] == "cannot be seen here"


def test_wrong_settings_end_with_status_2_at_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = installation(SETTINGS + "fail_open: true\n")
    (tmp_path / "all.yaml").write_text(text)
    assert main(["compliance", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert f"all.yaml:{line_of(text, 'fail_open')}:5: unknown field `fail_open`" in errors


def test_wrong_policies_end_with_status_2_at_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = installation(policies=POLICIES.replace("principals:", "principal:"))
    (tmp_path / "all.yaml").write_text(text)
    assert main(["compliance", str(tmp_path)]) == 2
    line = line_of(text, "principal:")
    column = text.splitlines()[line - 1].index("principal:") + 1
    assert f"all.yaml:{line}:{column}: unknown field `principal`" in capsys.readouterr().err


def test_settings_and_policies_may_be_given_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS.replace("required", "never"))
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.yaml").write_text(
        POLICIES.replace("  - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]\n    to:", "  - to:")
    )
    apart = ("--config", str(tmp_path / "settings.yaml"), "--policies", str(tmp_path / "rules"))
    answer = report(tmp_path, capsys, installation(), *apart)
    (gap,) = check_of(answer, "callers-verified")["missing"]
    assert (gap["source"], gap["line"]) == (str(tmp_path / "settings.yaml"), 9)
    (unseen,) = check_of(answer, "no-allow-all")["cannotBeSeen"]
    assert unseen["source"] == str(tmp_path / "rules" / "a.yaml")


def test_policies_without_a_config_map_are_reported_as_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace("configMap: {name: rules}", "configMap: {name: elsewhere}")
    answer = report(tmp_path, capsys, text)
    assert "/etc/policies" in check_of(answer, "decisions-known")["cannotBeSeen"][0]["message"]
    assert check_of(answer, "revocation")["status"] == "cannot be seen here"


def test_keys_of_a_config_map_are_found_under_the_names_they_are_mounted_as(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace("  config.yaml: |", "  settings: |")
    text = text.replace(
        "configMap: {name: settings}", "configMap: {name: settings, items: [{key: settings, path: config.yaml}]}"
    )
    assert check_of(report(tmp_path, capsys, text), "callers-verified")["status"] == "satisfied"


@pytest.mark.parametrize(
    "mounted",
    [
        "mountPath: /etc/policies/team/shop}",
        "mountPath: /etc/policies/team/shop.yaml, subPath: rules.yaml}",
        "mountPath: /etc/policies/}",
    ],
)
@pytest.mark.parametrize(
    "named", ["", ", items: [{key: rules.yaml, path: rules.yaml}, {key: rules.yaml, path: a/R.YAML}]"]
)
def test_policies_are_found_below_the_path_as_serve_finds_them(
    mounted: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace("mountPath: /etc/policies}", mounted)
    if "a/R.YAML" in named and "subPath" not in mounted:
        named = named.replace("{key: rules.yaml, path: rules.yaml}, ", "")
    text = text.replace("configMap: {name: rules}", f"configMap: {{name: rules{named}}}")
    (evidence,) = check_of(report(tmp_path, capsys, text), "dynamic-policy")["satisfied"]
    assert evidence["field"] == "AuthorizationPolicy shop/orders: spec.rules[0]"


def test_a_mount_below_the_path_without_known_content_is_reported_as_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace(
        "mountPath: /etc/policies}", "mountPath: /etc/policies}\n        - {name: more, mountPath: /etc/policies/more}"
    )
    text = text.replace(
        "configMap: {name: rules}}", "configMap: {name: rules}}\n      - {name: more, secret: {secretName: x}}"
    )
    answer = report(tmp_path, capsys, text)
    assert "/etc/policies/more" in check_of(answer, "decisions-known")["cannotBeSeen"][0]["message"]


@pytest.mark.parametrize("name", [".rules.yaml", "rules.txt", "kustomization.yaml"])
def test_config_map_keys_that_serve_skips_are_not_policies(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace(
        "configMap: {name: rules}", f"configMap: {{name: rules, items: [{{key: rules.yaml, path: {name}}}]}}"
    )
    answer = report(tmp_path, capsys, text)
    assert "/etc/policies" in check_of(answer, "decisions-known")["cannotBeSeen"][0]["message"]


@pytest.mark.parametrize("written", ["data", "operator", "values"])
def test_the_provider_is_found_wherever_the_mesh_configuration_stands(
    written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = "extensionProviders: [{name: zta-authz, envoyExtAuthzGrpc: {service: zta-authz.zta,\n  failOpen: true}}]"
    texts = {
        "data": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    "
        + provider.replace("\n", "\n    "),
        "operator": f"apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {{name: a}}\nspec: {{meshConfig: {{{provider}}}}}",
        "values": f"meshConfig: {{{provider}}}",
    }
    text = f"{installation()}---\n{texts[written]}\n"
    (gap,) = check_of(report(tmp_path, capsys, text), "fail-closed")["missing"]
    assert gap["line"] == line_of(text, "failOpen")
    assert gap["field"].endswith("extensionProviders[0].envoyExtAuthzGrpc.failOpen")
