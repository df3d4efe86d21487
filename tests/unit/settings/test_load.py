from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.model.options import CertificateCheck, ChainSource, Options, Semantics, Workload
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        file = tmp_path / "settings.yaml"
        file.write_text(text)
        return str(file)

    return write


def faults_of(file: str | None, environ: dict[str, str] | None = None) -> list[Fault]:
    with pytest.raises(SettingsErrors) as caught:
        load_settings(file, environ or {})
    return list(caught.value.faults)


def the_fault(file: str | None, environ: dict[str, str] | None = None) -> Fault:
    faults = faults_of(file, environ)
    assert len(faults) == 1, faults
    return faults[0]


def test_without_file_and_environment_everything_has_its_documented_default() -> None:
    settings = load_settings(None, {})
    assert settings.listen == ("unix:/run/zta-authz/authz.sock",)
    assert settings.policies == ("/etc/zta-authz/policies",)
    assert settings.health.listen == "0.0.0.0:9192"
    assert settings.admin.listen is None
    assert settings.socket_access() == SocketAccess(0o660, None)
    assert settings.options() == Options()


def test_an_empty_file_means_the_defaults(write: Callable[[str], str]) -> None:
    assert load_settings(write("# nothing yet\n"), {}) == Settings()


def test_every_setting_can_be_written_in_one_file(write: Callable[[str], str]) -> None:
    text = """
listen: ["unix:/run/zta-authz/authz.sock", "127.0.0.1:9191"]
policies: ["/etc/zta-authz/policies"]
semantics: strict
default_action: allow
workload:
  namespace: hats
  labels: {app: hatshop}
  trust_domain: td1
  trust_domain_aliases: [old]
root_namespace: istio-config
peer: {verify_certificate: required, trust_proxy: true, chain_from: [certificate, bundle, xfcc]}
client_address: {use_remote_address: true, xff_num_trusted_hops: 2}
paths: {ambiguous: accept}
server: grpcio
audit: {sink: stdout}
health: {listen: null}
admin: {listen: "unix:/run/zta-authz/admin.sock"}
socket: {mode: "0600", group: null}
"""
    settings = load_settings(write(text), {})
    assert settings.endpoints() == (Endpoint(path="/run/zta-authz/authz.sock"), Endpoint(host="127.0.0.1", port=9191))
    assert settings.health.listen is None
    assert settings.options() == Options(
        semantics=Semantics.STRICT,
        default_allow=True,
        workload=Workload("hats", {"app": "hatshop"}, "td1", ("old",)),
        root_namespace="istio-config",
        verify_certificate=CertificateCheck.REQUIRED,
        trust_proxy=True,
        chain_from=(ChainSource.CERTIFICATE, ChainSource.BUNDLE, ChainSource.XFCC),
        use_remote_address=True,
        xff_num_trusted_hops=2,
        accept_ambiguous_paths=True,
    )


def test_istio_semantics_use_istios_defaults() -> None:
    assert load_settings(None, {"ZTA_SEMANTICS": "istio"}).options() == Options.istio()


def test_explicit_settings_override_the_defaults_of_semantics() -> None:
    environ = {
        "ZTA_SEMANTICS": "istio",
        "ZTA_DEFAULT_ACTION": "deny",
        "ZTA_PATHS__AMBIGUOUS": "reject",
        "ZTA_PEER__TRUST_PROXY": "false",
    }
    options = load_settings(None, environ).options()
    assert (options.default_allow, options.accept_ambiguous_paths, options.trust_proxy) == (False, False, False)


def test_all_faults_of_file_and_environment_are_reported_at_once_with_their_places(write: Callable[[str], str]) -> None:
    file = write(
        'policis: [a]\nsemantics: lax\ninsecure: "yes"\nworkload: {labels: {version: 1}, namspace: x}\n'
        "drain_seconds: -1\npeer: 3\ntls: {cert_file: a}\n"
    )
    faults = faults_of(file, {"ZTA_LISTENN": "x", "ZTA_REFLECTION": "maybe", "ZTA_PEER": "x"})
    places = {(fault.source.removeprefix(file), fault.line, fault.column) for fault in faults}
    assert places == {
        ("", 1, 1),
        ("", 2, 12),
        ("", 3, 11),
        ("", 4, 30),
        ("", 4, 34),
        ("", 5, 16),
        ("", 6, 7),
        ("", 7, 6),
        ("environment variable ZTA_LISTENN", 0, 0),
        ("environment variable ZTA_REFLECTION", 0, 0),
        ("environment variable ZTA_PEER", 0, 0),
    }
    assert all(fault.hint for fault in faults)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("policis: [a]", "unknown field `policis`", "did you mean `policies`?"),
        ("workload: {namspace: a}", "unknown field `namspace`", "did you mean `namespace`?"),
        ("health: {address: a}", "unknown field `address`", "fields here are listen"),
        (
            "workloads: [{principal: 'spiffe://a/b', namespace: a, id: a}]",
            "unknown field `id`",
            "fields here are principal, namespace, labels",
        ),
        ("bundles: [{trust_domain: a.b, file: /a, ulr: x}]", "unknown field `ulr`", "did you mean `url`?"),
        ("semantics: Strict", "`semantics`: not one of the values of this field", "write 'strict' or 'istio'"),
        ("insecure: 'true'", "`insecure`: must be true or false", "write `true` or `false`, without quotes"),
        ("drain_seconds: 1m", "`drain_seconds`: must be a number", "write `60`: seconds, as a number without a unit"),
        ("drain_seconds: 2w", "`drain_seconds`: must be a number", "write a number, without quotes"),
        (
            "http2: {max_held_bytes: 8MiB}",
            "`http2.max_held_bytes`: must be a whole number",
            "write `8388608`: bytes, as a number without a unit",
        ),
        (
            "audit: {flush_ms: 1 s}",
            "`audit.flush_ms`: must be a whole number",
            "write `1000`: milliseconds, as a number without a unit",
        ),
        ("drain_seconds: .nan", "`drain_seconds`: input should be a finite number", "see the settings reference"),
        ("policies: a", "`policies`: must be a list", "write it as `[a, b]`"),
        ('policies: ["a\\0b"]', "`policies.0`: contains a control character", "remove it"),
        ('audit: {sink: file, path: "a\\0"}', "`audit.path`: contains a control character", "remove it"),
        ('jwks: {ca_file: "a\\n"}', "`jwks.ca_file`: contains a control character", "remove it"),
        (
            "socket: {group: '4294967295'}",
            "`socket.group`: a group's number is at most 4294967294",
            "or leave it out to keep the service's own group",
        ),
        ("policies: []", "`policies`: must not be empty", "write at least one value, or remove the field"),
        ("policies: [a, a]", "`policies`: the list contains a value twice", "remove one of the two"),
        ("workload: {labels: {v: 1}}", "`workload.labels.v`: must be text", "put the value in quotes"),
        ("workload: 3", "`workload`: must be a mapping", "write it as `{name: value}`"),
        ("socket: {mode: 0660}", "`socket.mode`: must be text", "put the value in quotes"),
        ("semantics: strict\nsemantics: istio", "duplicate key `semantics` (first at line 1)", "remove one of the two"),
        ("- a", "settings are a mapping, not a list", "write `name: value`"),
        ("{}\n---\n{}", "a settings file contains one document", "remove the others"),
    ],
)
def test_a_wrong_field_is_named_with_how_to_fix_it(
    write: Callable[[str], str], text: str, message: str, hint: str
) -> None:
    fault = the_fault(write(text))
    assert (fault.message, fault.hint) == (message, hint)
    assert fault.line > 0


@pytest.mark.parametrize(
    "address",
    [
        *("", "foo", "unix:", "unix:relative.sock", "unix:/run/", ":9191", "localhost", "127.0.0.1:65536"),
        *("127.0.0.1:-1", "127.0.0.1:٣", "::1:9191", "[127.0.0.1]:9191", "example.com:9191", "unix:/" + "a" * 107),
    ],
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Endpoint.parse(address)
    assert the_fault(None, {"ZTA_LISTEN": f'["{address}"]'}).source == "environment variable ZTA_LISTEN"


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("unix:/run/a.sock", Endpoint(path="/run/a.sock")),
        ("unix:///run/a.sock", Endpoint(path="/run/a.sock")),
        ("localhost:1", Endpoint(host="127.0.0.1", port=1)),
        ("[::1]:9191", Endpoint(host="::1", port=9191)),
        ("unix:/" + "a" * 106, Endpoint(path="/" + "a" * 106)),
    ],
)
def test_an_address_is_read(address: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(address) == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint


def test_plain_tcp_beyond_loopback_is_refused(write: Callable[[str], str]) -> None:
    fault = the_fault(write('listen: ["127.0.0.1:1", "0.0.0.0:9191"]'))
    assert (fault.line, fault.column) == (1, 25)
    assert "accepts calls from anybody" in fault.message


def test_plain_tcp_beyond_loopback_is_allowed_with_insecure() -> None:
    settings = load_settings(None, {"ZTA_LISTEN": "0.0.0.0:9191", "ZTA_INSECURE": "true"})
    assert settings.endpoints() == (Endpoint(host="0.0.0.0", port=9191),)


def test_mutual_tls_without_a_list_of_callers_is_refused(write: Callable[[str], str]) -> None:
    text = 'listen: ["0.0.0.0:9191"]\ntls: {cert_file: a, key_file: b, client_ca_file: c}'
    assert "no caller is allowed" in the_fault(write(text)).message
    allowed = text[:-1] + ", allowed_spiffe_ids: [spiffe://cluster.local/ns/default/sa/envoy]}"
    assert load_settings(write(allowed), {}).tls is not None


def test_the_admin_api_over_tcp_needs_mutual_tls_and_its_own_list_of_callers() -> None:
    faults = faults_of(None, {"ZTA_ADMIN__LISTEN": "127.0.0.1:9193"})
    assert [f"{fault.source}: {fault.message}" for fault in faults] == [
        "environment variable ZTA_ADMIN__LISTEN: the admin API over TCP needs mutual TLS",
        "settings: `admin.allowed_spiffe_ids`: no caller is allowed on the admin listener",
    ]


def test_the_admin_api_does_not_share_the_proxies_socket() -> None:
    environ = {"ZTA_LISTEN": "unix:/run/a.sock", "ZTA_ADMIN__LISTEN": "unix:/run/a.sock"}
    assert "this address already serves proxies" in the_fault(None, environ).message


def test_the_environment_wins_over_the_file(write: Callable[[str], str]) -> None:
    file = write("workload: {namespace: a, trust_domain: b}\npolicies: [/a]")
    settings = load_settings(file, {"ZTA_WORKLOAD__NAMESPACE": "c", "ZTA_POLICIES": "/b,/c"})
    assert (settings.workload.namespace, settings.workload.trust_domain) == ("c", "b")
    assert settings.policies == ("/b", "/c")


@pytest.mark.parametrize(
    ("value", "labels"),
    [("app=a,v=1", {"app": "a", "v": "1"}), ("{app: a}", {"app": "a"}), ('{"app": "a"}', {"app": "a"}), ("", {})],
)
def test_the_environment_accepts_a_mapping_in_either_form(value: str, labels: dict[str, str]) -> None:
    assert load_settings(None, {"ZTA_WORKLOAD__LABELS": value}).workload.labels == labels


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZTA_REFLECTION", "maybe"),
        ("ZTA_MAX_CONCURRENT_CHECKS", "many"),
        ("ZTA_MAX_CONCURRENT_CHECKS", "0"),
        ("ZTA_DRAIN_SECONDS", "1s"),
        ("ZTA_POLICIES", "[a"),
        ("ZTA_WORKLOAD__LABELS", "hatshop"),
        ("ZTA_WORKLOAD__TRUST_DOMAIN", "Cluster.Local"),
        ("ZTA_POLICIES", "a\udcff"),
        ("ZTA_SOCKET__MODE", "0999"),
        ("ZTA_SOCKET__MODE", "0066"),
        ("ZTA_SOCKET__GROUP", "no-such-group-here"),
        ("ZTA_TRACING__OTLP_ENDPOINT", "localhost:4317"),
        ("ZTA_HEALTH__LISTEN", "unix:/run/health.sock"),
    ],
)
def test_a_bad_variable_is_a_fault_that_names_it_and_not_its_value(name: str, value: str) -> None:
    fault = the_fault(None, {name: value})
    assert fault.source == f"environment variable {name}"
    assert fault.line == 0
    assert fault.hint
    assert value not in fault.message or len(value) == 1


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    fault = the_fault(None, {"ZTA_TRACING__OTLP_ENDPOINT": "https://ann:hunter2@otel:4317"})
    assert "hunter2" not in str(fault)


def test_a_misspelt_variable_is_refused_with_the_nearest_name() -> None:
    fault = the_fault(None, {"ZTA_WORKLOAD_NAMESPACE": "a"})
    assert fault.hint == "did you mean ZTA_WORKLOAD__NAMESPACE?"


@pytest.mark.parametrize("text", ["", "null"])
def test_an_empty_variable_and_null_clear_a_field_that_may_be_null(text: str) -> None:
    settings = load_settings(None, {"ZTA_HEALTH__LISTEN": text, "ZTA_PEER__TRUST_PROXY": text, "ZTA_SERVER": text})
    assert (settings.health.listen, settings.peer.trust_proxy, settings.server) == (None, None, None)


def test_null_is_text_for_a_field_that_can_not_be_null() -> None:
    assert load_settings(None, {"ZTA_WORKLOAD__NAMESPACE": "null"}).workload.namespace == "null"


def test_variables_that_kubernetes_injects_for_a_service_of_our_name_are_ignored() -> None:
    environ = {
        "ZTA_AUTHZ_SERVICE_HOST": "10.0.0.1",
        "ZTA_AUTHZ_SERVICE_PORT": "9191",
        "ZTA_AUTHZ_SERVICE_PORT_GRPC": "9191",
        "ZTA_AUTHZ_PORT": "tcp://10.0.0.1:9191",
        "ZTA_AUTHZ_PORT_9191_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert load_settings(None, environ) == Settings()


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    assert the_fault(str(tmp_path / "none.yaml")).message == "there is no such file"


def test_a_directory_instead_of_a_file_is_a_fault(tmp_path: Path) -> None:
    assert the_fault(str(tmp_path)).message == "is a directory"


def test_a_file_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(b"semantics: \xff")
    assert the_fault(str(file)).message == "is not UTF-8 (byte 11)"


def test_a_huge_file_is_a_fault_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    with file.open("wb") as stream:
        stream.truncate(2 * 1024 * 1024)
    assert "more than the 1048576" in the_fault(str(file)).message


def test_broken_yaml_is_a_fault_with_its_place(write: Callable[[str], str]) -> None:
    fault = the_fault(write("listen: [\nsemantics: strict"))
    assert fault.line == 3
    assert fault.message.startswith("not valid YAML")


def test_settings_can_not_be_changed_afterwards() -> None:
    settings = load_settings(None, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.insecure = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("jwks", "message"),
    [
        ("{refresh_seconds: 5}", "must be between `min_refresh_seconds` and `max_refresh_seconds`"),
        ("{max_refresh_seconds: 200}", "must be between `min_refresh_seconds` and `max_refresh_seconds`"),
        ("{private_hosts: [Login.example]}", "not a host name"),
        ("{private_hosts: ['https://login.example']}", "not a host name"),
        ("{private_hosts: [.example]}", "not a host name"),
        ("{min_refresh_seconds: 0}", "input should be greater than or equal to 1"),
    ],
)
def test_settings_for_fetched_keys_are_checked(write: Callable[[str], str], jwks: str, message: str) -> None:
    assert the_fault(write(f"jwks: {jwks}")).message.endswith(message)


def test_hosts_with_private_addresses_are_names_or_addresses() -> None:
    settings = load_settings(None, {"ZTA_JWKS__PRIVATE_HOSTS": "login.auth.svc,10.0.0.1,fd00::1"})
    assert settings.jwks.private_hosts == ("login.auth.svc", "10.0.0.1", "fd00::1")


def test_a_number_with_a_unit_in_a_variable_gets_a_hint_with_the_number_to_write() -> None:
    with pytest.raises(SettingsErrors) as caught:
        load_settings(None, {"ZTA_DRAIN_SECONDS": "1.5m"})
    assert [fault.hint for fault in caught.value.faults] == ["write `90`: seconds, as a number without a unit"]
