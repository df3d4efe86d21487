"""OpenTelemetry's own variables that turn an export on where our settings are silent about it.

`OTEL_EXPORTER_OTLP_ENDPOINT` (and that of one signal, which comes first) names the collector of spans and of pushed
metrics; `OTEL_EXPORTER_OTLP_PROTOCOL` goes with it. An endpoint in our settings, and a section or key that they set to
null, come before it. Source: opentelemetry.io/docs/specs/otel/protocol/exporter; its
specification of SDK environment variables.
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
    given: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[Path, Any], dict[Path, str]]:
    """Values by path that `environ` adds to the settings `given`, and the variable that each is from."""
    values: dict[Path, Any] = {}
    names: dict[Path, str] = {}
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return values, names
    for section, signal, path in _SIGNALS:
        where = _silent(section, given.get(section))
        if where is None or not _is_exported(environ.get(f"OTEL_{signal}_EXPORTER", "")):
            continue
        variable, endpoint = _first(environ, signal, "ENDPOINT")
        if not endpoint:
            continue
        place, inside = where
        variable_of_protocol, protocol = _first(environ, signal, "PROTOCOL")
        protocol = _PROTOCOLS.get(protocol.strip().lower(), protocol)
        if protocol and "protocol" not in inside:
            values[*place[:-1], "protocol"] = protocol
            names[*place[:-1], "protocol"] = variable_of_protocol
        common = variable == f"{_PREFIX}ENDPOINT"
        http = (inside.get("protocol") or protocol) == "http"
        values[place] = _below(endpoint, path) if common and http else endpoint
        names[place] = variable
    return values, names


def _silent(section: str, given: Any) -> tuple[Path, Mapping[str, Any]] | None:
    """Where the endpoint is to be set, and what is said beside it; None where the settings decide it themselves."""
    if given is None:
        return (section, "otlp", "endpoint"), {}
    if not isinstance(given, dict) or "otlp_endpoint" in given:
        return None
    if "otlp" in given:
        inside = given["otlp"]
        wanted = isinstance(inside, dict) and "endpoint" not in inside
        return ((section, "otlp", "endpoint"), inside) if wanted else None
    if section == "tracing" and {"protocol", "headers_file", "ca_file", "cert_file", "key_file"} & set(given):
        return (section, "otlp_endpoint"), given
    return (section, "otlp", "endpoint"), {}


def _is_exported(exporters: str) -> bool:
    """Whether a list such as `otlp,console` (empty: the default, `otlp`) has OTLP in it."""
    return not exporters.strip() or "otlp" in {each.strip().lower() for each in exporters.split(",")}


def _first(environ: Mapping[str, str], signal: str, what: str) -> tuple[str, str]:
    """The variable that counts, and its value: that of the signal, else that of all."""
    own, common = f"{_PREFIX}{signal}_{what}", f"{_PREFIX}{what}"
    return (own, environ[own]) if environ.get(own) else (common, environ.get(common, ""))


def _below(endpoint: str, path: str) -> str:
    """Over HTTP the endpoint of all signals is what their paths are appended to."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:  # no URL: a fault where it is checked
        return endpoint
    return parts._replace(path=parts.path.rstrip("/") + path).geturl()
