"""OTLP: the SDK's exporters for spans and metrics, and a path of its own for the decision log.

`messages` is what callers say and hear, without wire types. No allow may stand without its record, so records are sent
until they are taken: the SDK's logs exporter gives up, and its API is private and changes with releases.
Source: OpenTelemetry Protocol 1.x (opentelemetry.io/docs/specs/otlp).
"""
