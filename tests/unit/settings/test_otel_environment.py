"""OpenTelemetry's variables configure exports that the settings don't; the settings take precedence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zta_authz.errors import FaultsError
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.settings import Settings

ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def loaded(tmp_path: Path, text: str, environ: dict[str, str]) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return load_settings(str(file), environ)


def endpoints(settings: Settings) -> tuple[str | None, str | None]:
    """Where spans and metrics are sent."""
    spans, metrics = settings.tracing.collector, settings.metrics.otlp
    return (None if spans is None else spans.endpoint, None if metrics is None else metrics.endpoint)


@pytest.mark.parametrize(
    ("text", "environ", "spans", "metrics"),
    [
        ("", {}, None, None),
        ("", {ALL: "http://e:1"}, "http://e:1", "http://e:1"),
        ("", {ALL: ""}, None, None),
        ("", {TRACES: "http://t:1"}, "http://t:1", None),
        ("", {ALL: "http://e:1", TRACES: "http://t:1"}, "http://t:1", "http://e:1"),
        ("", {ALL: "http://e:1", PROTOCOL: "http/protobuf"}, "http://e:1/v1/traces", "http://e:1/v1/metrics"),
        ("", {ALL: "http://e:1/o/", PROTOCOL: "http/protobuf"}, "http://e:1/o/v1/traces", "http://e:1/o/v1/metrics"),
        ("", {TRACES: "http://t:1/x", PROTOCOL: "http/protobuf"}, "http://t:1/x", None),
        ("", {ALL: "http://e:1", "OTEL_SDK_DISABLED": "true"}, None, None),
        ("", {ALL: "http://e:1", "OTEL_TRACES_EXPORTER": "none"}, None, "http://e:1"),
        ("", {ALL: "http://e:1", "OTEL_METRICS_EXPORTER": "prometheus,otlp"}, "http://e:1", "http://e:1"),
        ("tracing: {otlp: {endpoint: 'http://s:1'}}", {ALL: "http://e:1"}, "http://s:1", "http://e:1"),
        ("tracing: {otlp_endpoint: 'http://s:1'}", {ALL: "http://e:1"}, "http://s:1", "http://e:1"),
        ("tracing: {otlp: null}\nmetrics: {otlp: null}", {ALL: "http://e:1"}, None, None),
        ("tracing: {otlp_endpoint: null}", {ALL: "http://e:1"}, None, "http://e:1"),
        ("metrics: {otlp: {interval_seconds: 5}}", {ALL: "http://e:1"}, "http://e:1", "http://e:1"),
        ("tracing: {sample_ratio: 0.5}", {ALL: "http://e:1"}, "http://e:1", "http://e:1"),
        ("tracing: {protocol: http}", {TRACES: "http://t:1", PROTOCOL: "grpc"}, "http://t:1", None),
    ],
)
def test_the_environment_names_collectors_that_the_settings_do_not_configure(
    tmp_path: Path, text: str, environ: dict[str, str], spans: str | None, metrics: str | None
) -> None:
    assert endpoints(loaded(tmp_path, text, environ)) == (spans, metrics)


def test_settings_beside_an_unset_endpoint_still_apply(tmp_path: Path) -> None:
    environ = {ALL: "http://e:1", PROTOCOL: "grpc"}
    text = "tracing: {protocol: http, headers_file: /h}\nmetrics: {otlp: {protocol: http, interval_seconds: 5}}"
    settings = loaded(tmp_path, text, environ)
    assert settings.tracing.collector is not None
    assert settings.metrics.otlp is not None
    assert (settings.tracing.collector.protocol, settings.tracing.collector.headers_file) == ("http", "/h")
    assert (settings.metrics.otlp.protocol, settings.metrics.otlp.interval_seconds) == ("http", 5)


def test_the_older_key_has_the_meaning_of_the_newer_one(tmp_path: Path) -> None:
    older = loaded(
        tmp_path, "tracing: {otlp_endpoint: 'https://s:1', protocol: http, headers_file: /h, ca_file: /c}", {}
    )
    newer = "tracing: {otlp: {endpoint: 'https://s:1', protocol: http, headers_file: /h, ca_file: /c}}"
    assert older.tracing.collector == loaded(tmp_path, newer, {}).tracing.collector


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({ALL: "collector:4317"}, ALL),
        ({TRACES: "http://user:s3cret@t:1"}, TRACES),
        ({ALL: "http://[e"}, ALL),
        ({ALL: "http://e:1", PROTOCOL: "http/json"}, PROTOCOL),
    ],
)
def test_an_unusable_variable_is_a_fault_that_names_it(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    with pytest.raises(FaultsError) as caught:
        loaded(tmp_path, "", environ)
    assert f"environment variable {named}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
