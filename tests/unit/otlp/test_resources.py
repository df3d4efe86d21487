"""Who exports, as the environment says it, else as this process knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.otlp.messages import Origin
from zta_authz.otlp.resources import resource_of

if TYPE_CHECKING:
    import pytest

ORIGIN = Origin("zta-authz", "1.2.3", "instance")


def test_without_variables_it_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        monkeypatch.delenv(name, raising=False)
    found = dict(resource_of(ORIGIN).attributes)
    ours = {"service.name": "zta-authz", "service.version": "1.2.3", "service.instance.id": "instance"}
    assert {name: text for name, text in found.items() if not name.startswith("telemetry.sdk.")} == ours


def test_the_environments_name_and_attributes_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-1,deployment.environment.name=prod")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-authz")
    found = resource_of(ORIGIN).attributes
    assert (found["service.name"], found["service.instance.id"]) == ("shop-authz", "pod-1")
    assert (found["service.version"], found["deployment.environment.name"]) == ("1.2.3", "prod")


def test_detectors_of_the_environment_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    assert "process.runtime.name" in resource_of(ORIGIN).attributes
