"""Collectors in the settings: consistency, where credentials come from, and that no fault contains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.collector import Collector
from tests.support.pki import root
from zta_authz.errors import FaultsError
from zta_authz.otlp.messages import Signal
from zta_authz.settings import load_settings
from zta_authz.settings.audit import open_audit
from zta_authz.settings.otlp import CA_VARIABLE, HEADERS_VARIABLE, connect, exporter_target
from zta_authz.settings.otlp_model import CollectorSettings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "5ecret"


def faults(tmp_path: Path, text: str, **environ: str) -> str:
    """Return the faults of these settings as text, "" for valid ones."""
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    try:
        load_settings(str(file), environ)
    except FaultsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("audit: {sink: otlp}", "sink `otlp` has no collector"),
        ("audit: {otlp: {endpoint: 'http://a:4317'}}", "only sink `otlp` has a collector"),
        ("audit: {sink: otlp, otlp: {}}", "this field is required"),
        ("audit: {sink: otlp, path: /a, otlp: {endpoint: 'http://a'}}", "only sink `file` has a path"),
        ("metrics: {otlp: {endpoint: 'a:4317'}}", "http or https URL"),
        ("metrics: {otlp: {endpoint: 'http://a:99999'}}", "http or https URL"),
        ("metrics: {otlp: {endpoint: 'http://a b'}}", "http or https URL"),
        ("metrics: {otlp: {endpoint: 'http://a..b:4318'}}", "http or https URL"),
        (f"audit: {{sink: otlp, otlp: {{endpoint: 'http://{'a' * 64}.b'}}}}", "http or https URL"),
        ("metrics: {otlp: {endpoint: 'http://me:5ecret@a'}}", "can't contain a user or password"),
        ("metrics: {otlp: {endpoint: 'http://a', protocol: udp}}", "write 'grpc' or 'http'"),
        ("metrics: {otlp: {endpoint: 'http://a', interval_seconds: 0.5}}", "interval_seconds"),
        ("metrics: {otlp: {endpoint: 'http://a', headers: {authorization: 5ecret}}}", "unknown field `headers`"),
        ("metrics: {otlp: {endpoint: 'https://a', cert_file: /a}}", "`metrics.otlp.key_file`"),
        ("audit: {sink: otlp, otlp: {endpoint: 'https://a', key_file: /a}}", "`audit.otlp.cert_file`"),
        ("metrics: {otlp: {endpoint: 'http://a', ca_file: /a}}", "the connection to this endpoint has no TLS"),
        ("tracing: {otlp_endpoint: 'http://a', ca_file: /a}", "write `https://` in `otlp_endpoint`"),
        ("tracing: {otlp_endpoint: 'https://a', cert_file: /a}", "`tracing.key_file`"),
        ("tracing: {otlp_endpoint: 'https://a', headers: {authorization: 5ecret}}", "unknown field `headers`"),
    ],
)
def test_inconsistent_settings_are_faults_without_secrets(tmp_path: Path, settings: str, message: str) -> None:
    text_of_faults = faults(tmp_path, settings)
    assert message in text_of_faults
    assert SECRET not in text_of_faults


def test_consistent_settings_are_no_fault(tmp_path: Path) -> None:
    whole = "{endpoint: 'https://a:4317/x', protocol: http, headers_file: /h, ca_file: /c, cert_file: /d, key_file: /k}"
    assert faults(tmp_path, f"audit: {{sink: otlp, otlp: {whole}}}\nmetrics: {{otlp: {whole}}}\n") == ""
    assert faults(tmp_path, f"tracing: {whole.replace('endpoint', 'otlp_endpoint')}\n") == ""
    variables = {"ZTA_AUDIT__SINK": "otlp", "ZTA_AUDIT__OTLP__ENDPOINT": "http://[::1]:4317"}
    assert faults(tmp_path, "{}", **variables, ZTA_METRICS__OTLP__ENDPOINT="http://a") == ""


def headers_sent(settings: CollectorSettings, environ: dict[str, str], signal: Signal = Signal.LOGS) -> dict[str, str]:
    """Return the headers that a collector receives."""
    with Collector() as collector:
        whole = settings.model_copy(update={"endpoint": collector.endpoint})
        transport = connect(whole, signal, "audit.otlp", environ)
        transport.send(b"", 5)
        transport.close()
    [headers] = collector.headers
    return {name: value for name, value in headers.items() if name in ("authorization", "x-scope", "x-a")}


def test_headers_come_from_their_file_or_else_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text(f"# who we are\n\nAuthorization: Bearer {SECRET}\r\nx-scope: a:b=c\n")
    environ = {HEADERS_VARIABLE: "x-a=1%202, authorization=other"}
    named = CollectorSettings(endpoint="http://a", headers_file=str(file))
    assert headers_sent(named, environ) == {"authorization": f"Bearer {SECRET}", "x-scope": "a:b=c"}
    assert headers_sent(CollectorSettings(endpoint="http://a"), environ) == {"x-a": "1 2", "authorization": "other"}
    assert headers_sent(CollectorSettings(endpoint="http://a"), {}) == {}


def test_the_variable_of_a_signal_overrides_the_common_one(tmp_path: Path) -> None:
    settings = CollectorSettings(endpoint="http://a")
    environ = {HEADERS_VARIABLE: "x-a=all", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-a=traces"}
    assert headers_sent(settings, environ, Signal.TRACES) == {"x-a": "traces"}
    assert headers_sent(settings, environ, Signal.METRICS) == {"x-a": "all"}
    with pytest.raises(FaultsError, match="OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        headers_sent(settings, {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "host=a"}, Signal.TRACES)
    secure = CollectorSettings(endpoint="https://a")
    certificates = {"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": str(tmp_path / "missing")}
    connect(secure, Signal.LOGS, "audit.otlp", certificates).close()
    with pytest.raises(FaultsError, match=r"tracing\.ca_file"):
        connect(secure, Signal.TRACES, "tracing", certificates)


def test_an_overlong_headers_file_is_refused_rather_than_truncated(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text(f"authorization: {SECRET * 20_000}\n")
    with pytest.raises(FaultsError, match="more than 64 KiB"):
        connect(CollectorSettings(endpoint="http://a", headers_file=str(file)), Signal.LOGS, "audit.otlp", {})


@pytest.mark.parametrize(
    "line",
    [
        f"authorization {SECRET}",
        f": {SECRET}",
        f"a b: {SECRET}",
        f"a: {SECRET}\x01",
        "a:",
        f"host: {SECRET}",
        f"grpc-x: {SECRET}",
        f"x-token-bin: {SECRET}",
        f"X-Token-Bin: {SECRET}",
        f"a!: {SECRET}",
    ],
)
def test_an_invalid_header_is_a_fault_that_does_not_contain_it(tmp_path: Path, line: str) -> None:
    file = tmp_path / "headers"
    file.write_text(f"ok: {SECRET}\n{line}\n")
    with pytest.raises(FaultsError) as caught:
        connect(CollectorSettings(endpoint="http://a", headers_file=str(file)), Signal.LOGS, "audit.otlp", {})
    assert f"{file}:2" in str(caught.value)
    assert SECRET not in str(caught.value)
    variable = {HEADERS_VARIABLE: line.replace(": ", "=").replace("\x01", "%01")}
    with pytest.raises(FaultsError) as caught:
        connect(CollectorSettings(endpoint="http://a"), Signal.LOGS, "audit.otlp", variable)
    assert HEADERS_VARIABLE in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"headers_file": "/missing/h"}, "audit.otlp.headers_file"),
        ({"ca_file": "/missing/ca"}, "cannot be read"),
        ({"ca_file": "garbage"}, "can't be used as PEM"),
        ({"ca_file": "ca.pem", "cert_file": "ca.pem", "key_file": "garbage"}, "can't be used as PEM"),
    ],
)
def test_unusable_files_are_faults_at_start(tmp_path: Path, protocol: str, paths: dict[str, str], message: str) -> None:
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / "ca.pem").write_text(root().pem)
    files = {name: file if file.startswith("/") else str(tmp_path / file) for name, file in paths.items()}
    settings = f"audit: {{sink: otlp, otlp: {{endpoint: 'https://a', protocol: {protocol}, "
    file = tmp_path / "settings.yaml"
    file.write_text(settings + ", ".join(f"{name}: {path}" for name, path in files.items()) + "}}\n")
    with pytest.raises(FaultsError) as caught:
        open_audit(load_settings(str(file), {}).audit)
    assert message in str(caught.value)


def test_the_environments_authorities_apply_if_the_settings_name_none(tmp_path: Path) -> None:
    settings = CollectorSettings(endpoint="https://a")
    with pytest.raises(FaultsError, match="cannot be read"):
        connect(settings, Signal.METRICS, "metrics.otlp", {CA_VARIABLE: str(tmp_path / "missing")})
    connect(settings, Signal.METRICS, "metrics.otlp", {}).close()


def test_the_environment_sets_compression_timeout_and_client_certificate(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text(root().pem)
    environ = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5"}
    target = exporter_target(CollectorSettings(endpoint="http://a"), Signal.TRACES, "tracing.otlp", environ)
    assert (target.compression, target.seconds) == ("gzip", 2.5)
    environ |= {"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "7"}
    target = exporter_target(CollectorSettings(endpoint="http://a"), Signal.TRACES, "tracing.otlp", environ)
    assert (target.compression, target.seconds) == ("none", 7)
    assert exporter_target(CollectorSettings(endpoint="http://a"), Signal.TRACES, "tracing.otlp", {}).seconds == 5
    client = {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/missing/c", "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/missing/k"}
    with pytest.raises(FaultsError, match="/missing/c: cannot be read"):
        exporter_target(CollectorSettings(endpoint="https://a"), Signal.TRACES, "tracing.otlp", client)
    assert exporter_target(CollectorSettings(endpoint="http://a"), Signal.TRACES, "tracing.otlp", client).seconds == 5


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("COMPRESSION", "brotli"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "nan"),
        ("METRICS_TIMEOUT", "10000"),
    ],
)
def test_an_invalid_exporter_variable_is_a_fault_at_start(variable: str, text: str) -> None:
    name = f"OTEL_EXPORTER_OTLP_{variable}"
    with pytest.raises(FaultsError, match=name):
        exporter_target(CollectorSettings(endpoint="http://a"), Signal.METRICS, "metrics.otlp", {name: text})
