"""The resource of spans and metrics: the environment's attributes, completed with those of this process.

The SDK reads `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME` and runs the detectors in
`OTEL_EXPERIMENTAL_RESOURCE_DETECTORS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

if TYPE_CHECKING:
    from zta_authz.otlp.messages import Origin


def resource_of(origin: Origin) -> Resource:
    """Return the resource of spans and metrics. The environment's attributes take precedence over those of `origin`."""
    detected = OTELResourceDetector().detect().attributes
    defaults = {"service.name": origin.name, "service.version": origin.version, "service.instance.id": origin.instance}
    return Resource.create({name: text for name, text in defaults.items() if text and name not in detected})
