"""The exporting process: attributes of the environment, and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.otlp.messages import Origin
from zta_authz.otlp.resources import resource_of

if TYPE_CHECKING:
    import pytest

ORIGIN = Origin("zta-authz", "1.2.3", "instance")


def test_without_variables_the_resource_describes_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        monkeypatch.delenv(name, raising=False)
    attributes = dict(resource_of(ORIGIN).attributes)
    expected = {"service.name": "zta-authz", "service.version": "1.2.3", "service.instance.id": "instance"}
    assert {name: text for name, text in attributes.items() if not name.startswith("telemetry.sdk.")} == expected


def test_name_and_attributes_of_the_environment_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-1,deployment.environment.name=prod")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-authz")
    attributes = resource_of(ORIGIN).attributes
    assert (attributes["service.name"], attributes["service.instance.id"]) == ("shop-authz", "pod-1")
    assert (attributes["service.version"], attributes["deployment.environment.name"]) == ("1.2.3", "prod")


def test_detectors_named_by_the_environment_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    assert "process.runtime.name" in resource_of(ORIGIN).attributes
