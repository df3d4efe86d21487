"""OTLP as the decision log and the metrics need it: requests of its generated classes, sent over gRPC or HTTP.

`messages` is what callers say and hear, without wire types. The SDK's own logs exporter is private and may change with
each of its releases; the protocol is stable. Source: OpenTelemetry Protocol 1.x (opentelemetry.io/docs/specs/otlp).
"""
