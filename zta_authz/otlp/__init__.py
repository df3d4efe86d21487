"""OTLP as the decision log, the metrics and the spans need it: requests, sent over gRPC or HTTP.

`messages` is what callers say and hear, without wire types. The SDK's own logs exporter is private and may change with
each of its releases, and its span exporters take nothing but the SDK's spans; the protocol is stable.
Source: OpenTelemetry Protocol 1.x (opentelemetry.io/docs/specs/otlp).
"""
