"""OpenTelemetry's environment variables, which turn on an export that the settings don't configure.

`OTEL_EXPORTER_OTLP_ENDPOINT`, or the more specific variable of one signal, names the collector of spans and pushed
metrics; `OTEL_EXPORTER_OTLP_PROTOCOL` its protocol. An endpoint in the settings, and a section or key that they set to
null, take precedence. Source: opentelemetry.io/docs/specs/otel/protocol/exporter and its specification of SDK
environment variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.settings.environment import Path

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_SIGNALS: Final = (("tracing", "TRACES", "/v1/traces"), ("metrics", "METRICS", "/v1/metrics"))
_PROTOCOLS: Final = {"http/protobuf": "http"}


def collectors_of_environment(
    merged: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[Path, Any], dict[Path, str]]:
    """Return the values by path that `environ` adds to the `merged` settings, and the variable of each."""
    values: dict[Path, Any] = {}
    variables: dict[Path, str] = {}
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return values, variables
    for section, signal, path in _SIGNALS:
        target = _endpoint_target(section, merged.get(section))
        if target is None or not _is_exported(environ.get(f"OTEL_{signal}_EXPORTER", "")):
            continue
        variable, endpoint = _variable(environ, signal, "ENDPOINT")
        if not endpoint:
            continue
        endpoint_path, siblings = target
        protocol_variable, protocol = _variable(environ, signal, "PROTOCOL")
        protocol = _PROTOCOLS.get(protocol.strip().lower(), protocol)
        if protocol and "protocol" not in siblings:
            values[*endpoint_path[:-1], "protocol"] = protocol
            variables[*endpoint_path[:-1], "protocol"] = protocol_variable
        common = variable == f"{_PREFIX}ENDPOINT"
        http = (siblings.get("protocol") or protocol) == "http"
        values[endpoint_path] = _below(endpoint, path) if common and http else endpoint
        variables[endpoint_path] = variable
    return values, variables


def _endpoint_target(section: str, value: Any) -> tuple[Path, Mapping[str, Any]] | None:
    """Return the path of the endpoint and its sibling settings, or None if the settings decide about the export."""
    if value is None:
        return (section, "otlp", "endpoint"), {}
    if not isinstance(value, dict) or "otlp_endpoint" in value:
        return None
    if "otlp" in value:
        siblings = value["otlp"]
        unset = isinstance(siblings, dict) and "endpoint" not in siblings
        return ((section, "otlp", "endpoint"), siblings) if unset else None
    if section == "tracing" and {"protocol", "headers_file", "ca_file", "cert_file", "key_file"} & set(value):
        return (section, "otlp_endpoint"), value
    return (section, "otlp", "endpoint"), {}


def _is_exported(exporters: str) -> bool:
    """Return whether a list such as `otlp,console` contains OTLP (empty: the default, `otlp`)."""
    return not exporters.strip() or "otlp" in {name.strip().lower() for name in exporters.split(",")}


def _variable(environ: Mapping[str, str], signal: str, option: str) -> tuple[str, str]:
    """Return the variable that applies and its value: the signal's own, else the common one."""
    own, common = f"{_PREFIX}{signal}_{option}", f"{_PREFIX}{option}"
    return (own, environ[own]) if environ.get(own) else (common, environ.get(common, ""))


def _below(endpoint: str, path: str) -> str:
    """Append a signal's path to the common endpoint, as HTTP exporters do."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:  # not a URL: validation reports it
        return endpoint
    return parts._replace(path=parts.path.rstrip("/") + path).geturl()
