"""Envoy's external authorization protocol: CheckRequest in, CheckResponse out, and nothing of gRPC or protobuf inward.

`request` makes attributes and evidence of the bytes of a CheckRequest; `response` makes the bytes of a CheckResponse of
a decision, and is the only place that makes one; `servicer` answers one Check call: never an exception outward, never
an empty answer.
"""
