"""Settings of trust bundles and of our own certificate: consistency checks, and the sources made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.pki import root
from zta_authz.errors import SettingsErrors
from zta_authz.model.options import Options
from zta_authz.settings import Settings, load_settings
from zta_authz.settings.trust import trust_sources

if TYPE_CHECKING:
    from pathlib import Path

PROXY = "spiffe://cluster.local/ns/default/sa/orders"
AGENT = "workload_api: {socket: 'unix:/run/spire/agent.sock'}\n"
TCP = 'listen: ["0.0.0.0:9191"]\n'
OUR_SVID = f'tls: {{source: workload_api, allowed_spiffe_ids: ["{PROXY}"]}}\n'


def load(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return load_settings(str(file), {})


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SettingsErrors) as caught:
        load(tmp_path, text)
    return [fault.message for fault in caught.value.faults]


def test_every_setting_makes_its_source(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(root().pem)
    settings = load(
        tmp_path,
        f"{TCP}{OUR_SVID}{AGENT}"
        "bundles:\n"
        "- {trust_domain: a.example, file: /a.pem}\n"
        f"- {{trust_domain: b.example, url: 'https://b.example/b', ca_file: {tmp_path}/ca.pem}}\n"
        "- {trust_domain: c.example, url: 'https://10.0.0.1:8443/', file: /c.json,"
        " endpoint_spiffe_id: 'spiffe://c.example/spire/server'}\n",
    )
    sources = trust_sources(settings)
    assert [(file.trust_domain.name, file.path) for file in sources.files] == [("a.example", "/a.pem")]
    (web, web_file), (spiffe, spiffe_file) = sources.endpoints
    assert (web.url, web.spiffe_id, web_file) == ("https://b.example/b", None, None)
    assert web.authorities is not None
    assert (str(spiffe.spiffe_id), spiffe.authorities) == ("spiffe://c.example/spire/server", None)
    assert spiffe_file is not None
    assert spiffe_file.path == "/c.json"
    assert (sources.agent, sources.agent_bundles, sources.agent_svid) == ("unix:/run/spire/agent.sock", True, True)


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("", False),
        (AGENT, True),
        ("workload_api: {socket: 'unix:/a', bundles: false}", False),
        ("bundles: [{trust_domain: a.example, file: /a}]", True),
    ],
)
def test_the_options_say_whether_bundles_come_from_outside_the_policies(
    tmp_path: Path, text: str, elsewhere: bool
) -> None:
    options = load(tmp_path, text or "{}").options()
    assert isinstance(options, Options)
    assert options.bundles_from_elsewhere is elsewhere


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundles: [{trust_domain: a.example}]", "the bundle has no source"),
        ("bundles: [{trust_domain: A, file: /a}]", "a trust domain is 1 to 255 characters"),
        ("bundles: [{trust_domain: a, url: 'http://a.example/'}]", "an https URL"),
        ("bundles: [{trust_domain: a, url: 'https://u:p@a.example/'}]", "an https URL"),
        ("bundles: [{trust_domain: a, url: 'https://a.example:99999/'}]", "an https URL"),
        ("bundles: [{trust_domain: a, url: 'https://[::1/'}]", "an https URL"),
        ('bundles: [{trust_domain: a, url: "https://a\\0b/"}]', "an https URL"),
        ('bundles: [{trust_domain: a, url: "https://a/b c"}]', "an https URL"),
        ('bundles: [{trust_domain: a, file: "/a\\0"}]', "contains a control character"),
        ("bundles: [{trust_domain: a, file: /a}, {trust_domain: a, file: /b}]", "two bundles for one trust domain"),
        ("bundles: [{trust_domain: a, file: /a, endpoint_spiffe_id: 'spiffe://a/b'}]", "the bundle has no endpoint"),
        ("bundles: [{trust_domain: a, file: /a, ca_file: /c}]", "`ca_file` applies to https_web endpoints only"),
        (
            "bundles: [{trust_domain: a, url: 'https://a/', endpoint_spiffe_id: 'spiffe://a/b'}]",
            "there is no bundle to authenticate the endpoint with",
        ),
        ("workload_api: {socket: '127.0.0.1:8081'}", "uses a Unix socket"),
        (f"{TCP}{OUR_SVID}", "the Workload API's socket is not set"),
    ],
)
def test_inconsistent_settings_are_reported(tmp_path: Path, text: str, message: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert message in fault


def test_an_endpoint_served_by_another_domain_needs_no_initial_bundle(tmp_path: Path) -> None:
    text = "bundles: [{trust_domain: a, url: 'https://a/', endpoint_spiffe_id: 'spiffe://b/c'}]"
    assert len(trust_sources(load(tmp_path, text)).endpoints) == 1


def test_tls_needs_all_three_files_unless_the_workload_api_provides_them(tmp_path: Path) -> None:
    missing = faults(tmp_path, f'{TCP}tls: {{cert_file: a, allowed_spiffe_ids: ["{PROXY}"]}}')
    assert missing == ["`tls.client_ca_file`: this field is required", "`tls.key_file`: this field is required"]
    (fault,) = faults(tmp_path, f"{TCP}{AGENT}{OUR_SVID.replace('}', ', key_file: k}')}")
    assert "provided by the Workload API" in fault


def test_an_unreadable_authorities_file_is_a_fault_that_names_it(tmp_path: Path) -> None:
    settings = load(tmp_path, "bundles: [{trust_domain: a, url: 'https://a.example/', ca_file: /none}]")
    with pytest.raises(SettingsErrors) as caught:
        trust_sources(settings)
    assert [(fault.source, fault.hint) for fault in caught.value.faults] == [
        ("/none", "correct `ca_file` in `bundles`")
    ]


STANDARD = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/spire/agent.sock"}


@pytest.mark.parametrize(
    ("text", "environ", "socket"),
    [
        (f"{TCP}{OUR_SVID}", STANDARD, STANDARD["SPIFFE_ENDPOINT_SOCKET"]),
        ("workload_api: {}\n", STANDARD, STANDARD["SPIFFE_ENDPOINT_SOCKET"]),
        ("", STANDARD | {"ZTA_WORKLOAD_API__BUNDLES": "true"}, STANDARD["SPIFFE_ENDPOINT_SOCKET"]),
        ("workload_api: {socket: 'unix:/own.sock'}\n", STANDARD, "unix:/own.sock"),
        ("workload_api: {socket: null}\n", STANDARD, None),
        ("", STANDARD, None),
        ("workload_api: {}\n", {"SPIFFE_ENDPOINT_SOCKET": ""}, None),
    ],
    ids=["our SVID", "a section", "a variable", "a setting", "none", "not wanted", "empty"],
)
def test_the_standard_variable_is_the_fallback_for_the_workload_apis_address(
    tmp_path: Path, text: str, environ: dict[str, str], socket: str | None
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert load_settings(str(file), environ).workload_api.socket == socket


def test_a_standard_variable_that_is_not_a_unix_socket_is_a_fault_that_names_it() -> None:
    with pytest.raises(SettingsErrors) as caught:
        load_settings(None, {"SPIFFE_ENDPOINT_SOCKET": "tcp://127.0.0.1:8081", "ZTA_WORKLOAD_API__BUNDLES": "true"})
    (fault,) = caught.value.faults
    assert fault.source == "environment variable SPIFFE_ENDPOINT_SOCKET"
    assert "Unix socket" in fault.message
