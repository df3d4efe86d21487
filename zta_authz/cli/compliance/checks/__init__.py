"""The checks. Each is a pure function that yields its findings about an installation.

enforcement       every request is checked by zta-authz
failure_modes     denial without an answer, and timeouts
request_evidence  proxies send complete requests, with certificates
tokens            which tokens are accepted, and for how long
policy_rules      content of the policies
transport         security of connections
network           network policies
pods              privileges of workloads
monitoring        decision log, metrics, alerts, traces
"""

from __future__ import annotations
