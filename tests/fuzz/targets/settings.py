"""Any settings file and environment give Settings, or SettingsErrors whose faults all say where and what.

What is taken says what was written: no unknown field is passed over, and the environment wins over the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target, as_written, assert_telling, text_of
from zta_authz.errors import SettingsErrors
from zta_authz.settings import Settings, load_settings

INVARIANT = "any file and environment give Settings that say what was written, or SettingsErrors that say what is wrong"
_NULLS = ("", "~", "null", "Null", "NULL")
_WORDS = ("semantics", "default_action", "root_namespace", "server")


def check(data: bytes) -> None:
    """A file, and after NUL bytes the environment, `NAME=value` each."""
    file, *variables = data.split(b"\x00")
    environ = {}
    for variable in variables:
        name, _, value = variable.partition(b"=")
        if name:
            environ[text_of(name)] = text_of(value)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "settings.yaml"
        path.write_bytes(file)
        try:
            settings = load_settings(str(path), environ)
        except SettingsErrors as error:
            assert_telling(error.faults)
            return
    written = [document for document in as_written(file.decode()) if isinstance(document, dict)]
    _assert_says(settings, written[0] if written else {}, environ)


def _assert_says(settings: Settings, written: dict[str, Any], environ: dict[str, str]) -> None:
    assert set(written) <= set(Settings.model_fields), "an unknown field was passed over"
    for name in _WORDS:
        said = environ.get(f"ZTA_{name.upper()}", written.get(name))
        if said not in (None, *_NULLS):  # what may be null then has its default
            assert str(getattr(settings, name)) == said


_FULL = """
listen: ["unix:/run/zta-authz/authz.sock", "127.0.0.1:9191"]
policies: ["/etc/zta-authz/policies"]
semantics: strict
default_action: deny
workload:
  namespace: default
  labels: {app: hatshop}
  trust_domain: cluster.local
  trust_domain_aliases: [old]
root_namespace: istio-system
peer:
  verify_certificate: when_present
  trust_proxy: false
  chain_from: [certificate, bundle]
client_address: {use_remote_address: false, xff_num_trusted_hops: 0}
paths: {ambiguous: reject}
server: grpcio
audit: {sink: stdout}
health: {listen: "0.0.0.0:9192"}
admin: {listen: null}
socket: {mode: "0660", group: null}
"""


def seeds() -> dict[str, bytes]:
    """Files with everything in them, and environments that set everything."""
    full = _FULL.encode()
    return {
        "full": full,
        "empty": b"",
        "istio": b"semantics: istio\ndefault_action: allow\n",
        "environment": full
        + b"\x00ZTA_SEMANTICS=istio\x00ZTA_WORKLOAD__LABELS=app=x,b=c\x00ZTA_LISTEN=unix:/x,127.0.0.1:1",
        "environment-yaml": b'\x00ZTA_LISTEN=["unix:/x"]\x00ZTA_WORKLOAD__LABELS={app: x}\x00ZTA_PEER__TRUST_PROXY=yes',
        "environment-wrong": b"\x00ZTA_PEER=x\x00ZTA_SERVICE_HOST=1\x00ZTA_NONSENSE=1\x00ZTA_SOCKET__MODE=\xff",
        "section-as-text": b"peer: x\nworkload: [a]\x00ZTA_PEER__TRUST_PROXY=true",
        "numbers": b"client_address: {xff_num_trusted_hops: " + b"9" * 5000 + b"}",
        "number-of-environment": b"\x00ZTA_CLIENT_ADDRESS__XFF_NUM_TRUSTED_HOPS=" + b"9" * 5000,
        "tls": b'listen: [{address: "0.0.0.0:9191", tls: {certificate: /a, key: /b, client_ca: /c, allowed: [spiffe://x/y]}}]',
        "nan": b"client_address: {xff_num_trusted_hops: .nan}\naudit: .inf",
        "binary": b"\xff\xfe\x00\x01",
        "surrogate": b'semantics: "\\ud800"\nroot_namespace: "\\ud800"',
    }


WORDS = (
    b"\x00ZTA_", b"__", b"ZTA_LISTEN=", b"ZTA_PEER__VERIFY_CERTIFICATE=", b"ZTA_WORKLOAD__LABELS=", b"semantics: ", b"istio",
    b"listen: ", b"unix:", b"127.0.0.1:", b"workload:\n  ", b"labels: {", b"trust_domain: ", b"peer:\n  ", b"chain_from: [",
    b"admin: ", b"tls: {", b"null", b"true", b"yes", b"0x10", b".inf", b".nan", b"1e999", b"2026-01-01", b"[[[", b"{", b"}",
    b"&a ", b"*a", b"---\n", b"audit: {", b"gateways: [", b"workloads: [", b"caller: ", b"socket: {mode: ", b"-1", b"spiffe://",
)  # fmt: skip

TARGET = Target("settings", INVARIANT, check, seeds, WORDS)
