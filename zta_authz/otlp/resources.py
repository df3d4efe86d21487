"""Who exports: what the environment names, else this process. As the SDK detects it.

`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME` and the detectors of `OTEL_EXPERIMENTAL_RESOURCE_DETECTORS` count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

if TYPE_CHECKING:
    from zta_authz.otlp.messages import Origin


def resource_of(origin: Origin) -> Resource:
    """The resource of spans and metrics: what the environment says comes before what `origin` says."""
    said = OTELResourceDetector().detect().attributes
    ours = {"service.name": origin.name, "service.version": origin.version, "service.instance.id": origin.instance}
    return Resource.create({name: text for name, text in ours.items() if text and name not in said})
