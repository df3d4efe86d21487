"""The settings of exports to OpenTelemetry collectors: spans, metrics, decision records."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from zta_authz.settings.values import Section, Text, distinct, invalid

_NOT_A_URL = "an OTLP endpoint is an http or https URL"
_URL_HINT = "write for example `http://127.0.0.1:4317`"


def _otlp(text: str) -> str:
    try:
        parts = urlsplit(text)
        (parts.hostname or "").encode("idna")  # as DNS lookups need it
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.fragment
    except ValueError:  # an invalid port or host name
        raise invalid(_NOT_A_URL, _URL_HINT) from None
    if not valid or not (text.isascii() and text.isprintable() and " " not in text):
        raise invalid(_NOT_A_URL, _URL_HINT)
    if parts.username is not None or parts.password is not None:
        raise invalid(
            "an OTLP endpoint can't contain a user or password", "set OTEL_EXPORTER_OTLP_HEADERS in the environment"
        )
    return text


OtlpEndpoint = Annotated[str, AfterValidator(_otlp)]


class CollectorSettings(Section):
    """A collector and its credentials. `headers_file` has one `name: value` per line; the other files are PEM."""

    endpoint: OtlpEndpoint
    protocol: Literal["grpc", "http"] = "grpc"
    headers_file: Text | None = None
    ca_file: Text | None = None
    cert_file: Text | None = None
    key_file: Text | None = None


class PushSettings(CollectorSettings):
    """The collector that metrics are pushed to, and how often."""

    interval_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 60.0


class MetricsSettings(Section):
    """Metrics in addition to the page that Prometheus scrapes."""

    otlp: PushSettings | None = None


OLDER_KEYS: Final = ("otlp_endpoint", "protocol", "headers_file", "ca_file", "cert_file", "key_file")
"""Keys of `tracing` that its section `otlp` replaces."""


class TracingSettings(Section):
    """Where spans are sent (null: nowhere), and how many requests are sampled if their caller did not decide.

    `keep` names requests that are traced even if not sampled. `otlp_endpoint` and the five fields after it are the
    older names of the fields of `otlp`.
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
        """The collector of spans, under its current or older names; None: spans are not sent."""
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
