"""The fields of what is sent to OpenTelemetry collectors: spans, metrics, decision records."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from zta_authz.settings.values import Section, Text, distinct, wrong

_NO_URL = "an OTLP endpoint is an http or https URL"
_URL_HINT = "write for example `http://127.0.0.1:4317`"


def _otlp(text: str) -> str:
    try:
        parts = urlsplit(text)
        (parts.hostname or "").encode("idna")  # as it is looked up; else no request would ever be sent
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.fragment
    except ValueError:  # a port or a name that is none
        raise wrong(_NO_URL, _URL_HINT) from None
    if not known or not (text.isascii() and text.isprintable() and " " not in text):
        raise wrong(_NO_URL, _URL_HINT)
    if parts.username is not None or parts.password is not None:
        raise wrong("an OTLP endpoint holds no user or password", "set OTEL_EXPORTER_OTLP_HEADERS in the environment")
    return text


OtlpEndpoint = Annotated[str, AfterValidator(_otlp)]


class CollectorSettings(Section):
    """The collector and the credentials for it. `headers_file` has one `name: value` per line; the others are PEM."""

    endpoint: OtlpEndpoint
    protocol: Literal["grpc", "http"] = "grpc"
    headers_file: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None


class PushSettings(CollectorSettings):
    """Where metrics are sent, and how often."""

    interval_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 60.0


class MetricsSettings(Section):
    """Metrics that are pushed, in addition to the page that Prometheus reads."""

    otlp: PushSettings | None = None


OLDER_KEYS: Final = ("otlp_endpoint", "protocol", "headers_file", "ca_file", "cert_file", "key_file")
"""Of `tracing`: what is now in its section `otlp`."""


class TracingSettings(Section):
    """Where spans are sent (None: nowhere), and the share of checks that is sampled if the proxy does not decide.

    `keep` names the checks that are traced even if they were not sampled. `otlp_endpoint` and the five fields after it
    are older names of the fields in `otlp`.
    """

    otlp: CollectorSettings | None = None
    otlp_endpoint: OtlpEndpoint | None = None
    protocol: Literal["grpc", "http"] = "grpc"
    headers_file: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    keep: Annotated[tuple[Literal["denials", "errors"], ...], AfterValidator(distinct)] = ("errors",)

    @property
    def collector(self) -> CollectorSettings | None:
        """Where spans go, by whichever names it is set; None: nowhere."""
        if self.otlp is not None or self.otlp_endpoint is None:
            return self.otlp
        return CollectorSettings(
            endpoint=self.otlp_endpoint,
            protocol=self.protocol,
            headers_file=self.headers_file,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
        )

    @property
    def collector_section(self) -> str:
        """The section that names the collector."""
        return "tracing" if self.otlp is None else "tracing.otlp"
