"""Settings that are valid on their own and inconsistent together: every rule is reached and reports place and cause."""

from __future__ import annotations

import ast
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.audit_logs import KEY_PEM
from tests.support.pki import pem, private_key, root
from tests.support.webhook_receiver import SECRET_LINE
from zta_authz.administrator.app import Administrator
from zta_authz.errors import SettingsErrors
from zta_authz.service.app import Service, start_log
from zta_authz.settings import audit, consistency, following, load_settings, otlp, trust
from zta_authz.settings.audit import open_audit
from zta_authz.settings.inconsistency import Inconsistency
from zta_authz.settings.trust import trust_sources
from zta_authz.settings.values import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (consistency, audit, following, otlp, trust)
PROXY = "spiffe://cluster.local/ns/hats/sa/proxy"
FILES = "cert_file: /c, key_file: /k, client_ca_file: /a"
FOLLOW_FILES = "cert_file: /c, key_file: /k, ca_file: /a"
TCP = 'listen: ["127.0.0.1:9191"]\n'

# The settings file, the field that the fault is reported at, and a part of its message.
TABLE: list[tuple[str, str, str]] = [
    ('listen: ["0.0.0.0:9191"]', "listen.0", "accepts calls from anybody"),
    (f"{TCP}tls: {{{FILES}}}", "tls.allowed_spiffe_ids", "no caller is allowed"),
    (f"tls: {{{FILES}, allowed_spiffe_ids: ['{PROXY}']}}", "tls.allowed_spiffe_ids", "applies to TCP listeners only"),
    ("server: fast\nreflection: true", "reflection", "server `fast` does not support reflection"),
    ("server: grpcio\nsocket: {peer_uids: [1337]}", "socket.peer_uids", "server `grpcio` can't identify the user"),
    ("reflection: true\nsocket: {peer_uids: [1337]}", "socket.peer_uids", "which `reflection: true` chooses"),
    (f"{TCP}socket: {{peer_uids: [1337]}}", "socket.peer_uids", "on Unix sockets only"),
    ("http2: {max_message_bytes: 9000000}", "http2.max_unsent_bytes", "is less than `max_message_bytes`, 9000000"),
    ("http2: {max_buffered_bytes: 2048}", "http2.max_buffered_bytes", "is less than `max_message_bytes`"),
    ("server: grpcio\nhttp2: {max_connections: 8}", "http2.max_connections", "does not support this limit"),
    ("reflection: true\nhttp2: {idle_seconds: 0}", "http2.idle_seconds", "does not support this limit"),
    (
        f"workloads:\n- {{principal: '{PROXY}', namespace: a}}\n- {{principal: '{PROXY}', namespace: b}}",
        "workloads.1.principal",
        "two workloads have this principal",
    ),
    ("jwks: {refresh_seconds: 5}", "jwks.refresh_seconds", "must be between"),
    ("minting: {issuer: 'https://zta.example'}", "minting.keys", "`issuer` is set without `keys`"),
    ("minting: {keys: /etc/keys.yaml}", "minting.issuer", "`keys` is set without `issuer`"),
    ("admin: {listen: 'unix:/run/zta-authz/authz.sock'}", "admin.listen", "this address already serves proxies"),
    (f"admin: {{listen: '127.0.0.1:9', allowed_spiffe_ids: ['{PROXY}']}}", "admin.listen", "needs mutual TLS"),
    (
        f"tls: {{{FILES}}}\nadmin: {{listen: '127.0.0.1:9'}}",
        "admin.allowed_spiffe_ids",
        "no caller is allowed on the admin listener",
    ),
    (f"admin: {{allowed_spiffe_ids: ['{PROXY}']}}", "admin.allowed_spiffe_ids", "is not a TCP address"),
    (
        f"admin: {{listen: 'unix:/a', allowed_spiffe_ids: ['{PROXY}']}}",
        "admin.allowed_spiffe_ids",
        "is not a TCP address",
    ),
    (
        f"workers: 2\ntls: {{{FILES}}}\nadmin: {{listen: '127.0.0.1:9', allowed_spiffe_ids: ['{PROXY}']}}",
        "admin.listen",
        "can't be distinguished on one TCP port",
    ),
    (f"workers: 2\nlisten: ['unix:/{'a' * 105}']", "listen.0", "bytes"),
    (f"{TCP}tls: {{cert_file: /c, key_file: /k, allowed_spiffe_ids: ['{PROXY}']}}", "tls.client_ca_file", "required"),
    (
        (
            f"{TCP}tls: {{source: workload_api, cert_file: /c, allowed_spiffe_ids: ['{PROXY}']}}\n"
            "workload_api: {socket: 'unix:/a'}"
        ),
        "tls.cert_file",
        "provided by the Workload API",
    ),
    (f"{TCP}tls: {{source: workload_api, allowed_spiffe_ids: ['{PROXY}']}}", "tls.source", "socket is not set"),
    ("administrator: {follow: 'administrator.zta.svc:9195'}", "administrator.follow", "needs mutual TLS"),
    ("administrator: {follow: '127.0.0.1:9195'}\ninsecure: true", "administrator.follow", "needs mutual TLS"),
    (
        f"administrator: {{follow: 'unix:/a', tls: {{{FOLLOW_FILES}, spiffe_ids: ['{PROXY}']}}}}",
        "administrator.tls",
        "applies to a TCP address only",
    ),
    (
        f"administrator: {{follow: 'a:1', tls: {{cert_file: /c, key_file: /k, spiffe_ids: ['{PROXY}']}}}}",
        "administrator.tls.ca_file",
        "required",
    ),
    (
        f"administrator: {{follow: 'a:1', tls: {{source: workload_api, ca_file: /a, spiffe_ids: ['{PROXY}']}}}}",
        "administrator.tls.ca_file",
        "provided by the Workload API",
    ),
    (
        f"administrator: {{follow: 'a:1', tls: {{source: workload_api, spiffe_ids: ['{PROXY}']}}}}",
        "administrator.tls.source",
        "socket is not set",
    ),
    (
        f"administrator: {{follow: 'a:1', tls: {{{FOLLOW_FILES}}}}}",
        "administrator.tls.spiffe_ids",
        "no administrator is accepted",
    ),
    (
        f"administrator: {{follow: 'a:1', tls: {{{FOLLOW_FILES}, spiffe_ids: ['{PROXY}', 'spiffe://other/a']}}}}",
        "administrator.tls.spiffe_ids",
        "of several trust domains",
    ),
    ("administrator: {views: {listen: ['127.0.0.1:9195']}}", "administrator.views.listen.0", "only with mutual TLS"),
    (
        f"tls: {{{FILES}}}\nadministrator: {{views: {{listen: ['127.0.0.1:9195']}}}}",
        "administrator.views.allowed_spiffe_ids",
        "no decision point may follow over TCP",
    ),
    (
        f"administrator: {{views: {{allowed_spiffe_ids: ['{PROXY}']}}}}",
        "administrator.views.allowed_spiffe_ids",
        "applies to TCP addresses only",
    ),
    (
        (
            f"tls: {{{FILES}}}\nadministrator:\n"
            f"  views: {{listen: ['127.0.0.1:1'], peer_uids: [7], allowed_spiffe_ids: ['{PROXY}']}}"
        ),
        "administrator.views.peer_uids",
        "on Unix sockets only",
    ),
    (
        "administrator: {operations: {http: ['unix:/a', '127.0.0.1:1', '0.0.0.0:2']}}",
        "administrator.operations.http.2",
        "could read the tokens",
    ),
    ("administrator: {operations: {grpc: ['[::]:2']}}", "administrator.operations.grpc.0", "could read the tokens"),
    ("bundles: [{trust_domain: a}]", "bundles.0", "no source"),
    ("bundles: [{trust_domain: a, file: /a}, {trust_domain: a, file: /b}]", "bundles.1.trust_domain", "two bundles"),
    (
        "bundles: [{trust_domain: a, file: /a, endpoint_spiffe_id: 'spiffe://a/x'}]",
        "bundles.0.endpoint_spiffe_id",
        "the bundle has no endpoint",
    ),
    ("bundles: [{trust_domain: a, file: /a, ca_file: /b}]", "bundles.0.ca_file", "applies to https_web endpoints only"),
    (
        "bundles: [{trust_domain: a, url: 'https://a/', endpoint_spiffe_id: 'spiffe://a/x'}]",
        "bundles.0",
        "there is no bundle to authenticate the endpoint with",
    ),
    ("policies: [/a]\nroot_documents: {paths: [/b]}", "root_documents.paths.0", "is not a path of `policies`"),
    ("policies: [/a]\nroot_documents: {paths: [/ab]}", "root_documents.paths.0", "is not a path of `policies`"),
    ("policies: [/a/../b]\nroot_documents: {paths: [/b/c]}", "root_documents.paths.0", "paths that contain `..`"),
    ("audit: {sink: file}", "audit.path", "has no path"),
    ("audit: {path: /a}", "audit.path", "only sink `file` has a path"),
    ("audit: {max_files: 3}", "audit.max_files", "applies to sink `file` only"),
    ("audit: {sink: otlp}", "audit.otlp", "has no collector"),
    ("audit: {otlp: {endpoint: 'http://a:4317'}}", "audit.otlp", "only sink `otlp`"),
    ("audit: {checkpoint: {path: /a, key_file: /b}}", "audit.checkpoint", "only sink `file` has checkpoints"),
    (
        "audit: {sink: file, path: /a, checkpoint: {path: /a, key_file: /b}}",
        "audit.checkpoint.path",
        "in the log file itself",
    ),
    ("audit: {mask: [{field: path, how: hash}]}", "audit.mask_key_file", "hashing needs a key"),
    ("audit: {mask_key_file: /a}", "audit.mask_key_file", "no field is hashed"),
    ("audit: {mask: [{field: path, how: drop}, {field: path, how: drop}]}", "audit.mask.1.field", "masked twice"),
    ("metrics: {otlp: {endpoint: 'https://a:1', key_file: /a}}", "metrics.otlp.cert_file", "belong together"),
    ("tracing: {otlp_endpoint: 'http://a:1', ca_file: /a}", "tracing.ca_file", "has no TLS"),
    ("tracing: {otlp: {endpoint: 'http://a:1', ca_file: /a}}", "tracing.otlp.ca_file", "has no TLS"),
    ("tracing: {otlp: {endpoint: 'http://a:1'}, headers_file: /a}", "tracing.headers_file", "older name"),
    ("tracing: {otlp: {endpoint: 'http://a:1'}, otlp_endpoint: 'http://b:1'}", "tracing.otlp_endpoint", "older name"),
]


@pytest.mark.parametrize(("text", "path", "message"), TABLE)
def test_inconsistent_settings_are_a_fault_at_the_field(tmp_path: Path, text: str, path: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsErrors) as caught:
        load_settings(str(file), {})
    messages = [fault.message for fault in caught.value.faults]
    assert [text for text in messages if text.startswith(f"`{path}`: ") and message in text], messages


def _sites() -> dict[tuple[str, int], tuple[str, int]]:
    """Each line of each `Inconsistency(...)` in the modules of the rules, with the line where that call begins."""
    sites = {}
    for module in MODULES:
        file = str(module.__file__)
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Inconsistency":
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    sites[file, line] = (file, node.lineno)
    return sites


def test_every_rule_is_reached_by_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = _sites()
    reached = set()

    def record(*arguments: Any) -> Inconsistency:
        frame = sys._getframe(1)
        reached.add(sites[frame.f_code.co_filename, frame.f_lineno])
        return Inconsistency(*arguments)

    for module in MODULES:
        monkeypatch.setattr(module, "Inconsistency", record)
    file = tmp_path / "settings.yaml"
    for text, _, _ in TABLE:
        file.write_text(text)
        with pytest.raises(SettingsErrors):
            load_settings(str(file), {})
    assert set(sites.values()) - reached == set()


def test_valid_settings_always_make_valid_bounds_of_the_fast_server(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("http2: {max_message_bytes: 8388608}")
    assert load_settings(str(file), {}).http2.bounds().max_message_bytes == 8388608


POLICY = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {rules: [{}]}}"
EVERYTHING = """
listen: ["unix:{0}/s", "127.0.0.1:0"]
policies: ["{0}/policy.yaml"]
shadow_policies: ["{0}/policy.yaml"]
tls: {{cert_file: "{0}/cert.pem", key_file: "{0}/key.pem", client_ca_file: "{0}/ca.pem", allowed_spiffe_ids: ["{1}"]}}
workloads: [{{principal: "{1}", namespace: a}}]
gateways: [{{spiffe_id: unix, namespaces: [a]}}]
health: {{listen: "127.0.0.1:0"}}
admin: {{listen: "127.0.0.1:0", allowed_spiffe_ids: ["{1}"]}}
jwks: {{ca_file: "{0}/ca.pem"}}
administrator:
  follow: "127.0.0.1:9"
  tls: {{cert_file: "{0}/cert.pem", key_file: "{0}/key.pem", ca_file: "{0}/ca.pem", spiffe_ids: ["{1}"]}}
  store: {{url: "sqlite:///{0}/store.sqlite"}}
  access_log: {{path: "{0}/access.jsonl", checkpoint: {{path: "{0}/c2", key_file: "{0}/ed.pem"}}}}
  views: {{listen: ["unix:{0}/administrator.sock", "127.0.0.1:0"], allowed_spiffe_ids: ["{1}"]}}
  signals: {{listen: "127.0.0.1:0", cert_file: "{0}/cert.pem", key_file: "{0}/key.pem", sources: {{a/b: {{}}}}}}
  webhooks: [{{url: "https://hooks.example/", secret_file: "{0}/webhook"}}]
minting: {{issuer: "https://zta.example", keys: "{0}/keys.yaml"}}
networks: {{reputation: [{{file: "{0}/bad.txt"}}]}}
bundles: [{{trust_domain: a.example, url: "https://127.0.0.1:9/", ca_file: "{0}/ca.pem"}}]
tracing: {{otlp_endpoint: "http://127.0.0.1:9"}}
metrics: {{otlp: {{endpoint: "http://127.0.0.1:9"}}}}
audit: {{sink: file, path: "{0}/log", checkpoint: {{path: "{0}/c", key_file: "{0}/ed.pem"}},
  mask: [{{field: path, how: hash}}], mask_key_file: "{0}/mask"}}
drain_seconds: 0
"""
READ_ELSEWHERE = {
    "Settings.max_concurrent_checks": "only `server: grpcio` has a queue to bound",
    "Settings.insecure": "it permits what the rules above would refuse",
    "AdministratorSettings.embedded": "`serve` reads it before it builds anything",
    "Settings.workers": "`serve` reads it before it builds anything",
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Fields of the settings that were read, as `Section.field`."""
    names: set[str] = set()
    plain_get, plain_dump = Section.__getattribute__, Section.model_dump

    def get(self: Section, name: str) -> Any:
        kind = object.__getattribute__(self, "__class__")
        if name in kind.model_fields:
            names.add(f"{kind.__name__}.{name}")
        return plain_get(self, name)

    def dump(self: Section, **options: Any) -> Any:
        fields = plain_dump(self, **options)
        names.update(f"{type(self).__name__}.{name}" for name in fields)
        return fields

    monkeypatch.setattr(Section, "__getattribute__", get)
    monkeypatch.setattr(Section, "model_dump", dump)
    return names


def _sections(model: type[Section]) -> Iterator[type[Section]]:
    yield model
    for kind in model.__subclasses__():
        yield from _sections(kind)


async def test_every_setting_is_read_by_the_code_that_it_configures(
    tmp_path: Path, reads: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    key = private_key()
    (tmp_path / "ca.pem").write_text(root().pem)
    (tmp_path / "cert.pem").write_text(pem(root().issue(uris=(PROXY,), key=key)))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "ed.pem").write_bytes(KEY_PEM)
    (tmp_path / "keys.yaml").write_text("keys: [{file: ed.pem}]")
    (tmp_path / "mask").write_bytes(bytes(32))
    (tmp_path / "webhook").write_text(SECRET_LINE)
    (tmp_path / "bad.txt").write_text("192.0.2.1\n")
    file = tmp_path / "settings.yaml"
    file.write_text(EVERYTHING.format(tmp_path, PROXY))
    settings = load_settings(str(file), {})
    file.write_text("workload_api: {socket: 'unix:/a'}\naudit: {sink: otlp, otlp: {endpoint: 'http://127.0.0.1:9'}}")
    another = load_settings(str(file), {})
    reads.clear()  # what the rules above look at is not in force yet
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.INFO))
    start_log(settings)
    service = Service(settings)
    await service.start()
    service.apply_settings(settings)
    await service.stop()
    administrator = Administrator(settings)
    await administrator.start()
    await administrator.stop()
    trust_sources(another)
    open_audit(another.audit).close()
    known = {f"{kind.__name__}.{name}" for kind in _sections(Section) for name in kind.model_fields}
    assert known - reads == set(READ_ELSEWHERE)
