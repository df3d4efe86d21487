"""OTLP export: the SDK's exporters for spans and metrics, and a separate path for the decision log.

`messages` holds the callers' types, which are independent of the wire format. No allow may lack its record, so records
are sent until the collector accepts them. The SDK's log exporter gives up instead, and its API is private and unstable.
Source: OpenTelemetry Protocol 1.x (opentelemetry.io/docs/specs/otlp).
"""
