"""Every name that leaves the process in spans and metrics. OpenTelemetry's semantic conventions where they have one."""

from __future__ import annotations

from typing import Final

SERVICE_NAME: Final = "zta-authz"
INSTRUMENTATION: Final = "zta_authz.telemetry"

# the span of one Check call; semantic conventions for RPC, HTTP, URL, server and error attributes
CHECK_SPAN: Final = "envoy.service.auth.v3.Authorization/Check"
RPC_SYSTEM: Final = "rpc.system"
RPC_SERVICE: Final = "rpc.service"
RPC_METHOD: Final = "rpc.method"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_METHOD_ORIGINAL: Final = "http.request.method_original"
URL_PATH: Final = "url.path"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# ours
VERDICT: Final = "zta.verdict"
REASON: Final = "zta.reason"
POLICY: Final = "zta.policy"
RULE: Final = "zta.rule"
PRINCIPAL: Final = "zta.principal"
DECISION_ID: Final = "zta.decision_id"

# its events, one at the end of each stage that was reached
PARSE_EVENT: Final = "zta.parse"
IDENTITY_EVENT: Final = "zta.identity"
MATCH_EVENT: Final = "zta.match"
CONDITIONS_EVENT: Final = "zta.conditions"
DURATION: Final = "zta.duration_ns"
CONDITIONS: Final = "zta.conditions"

# resource
RESOURCE_NAME: Final = "service.name"
RESOURCE_VERSION: Final = "service.version"
RESOURCE_INSTANCE: Final = "service.instance.id"

# metrics; Prometheus adds `_total` to counters and `_info` to infos
DECISIONS: Final = "zta_decisions"
POLICY_DECISIONS: Final = "zta_policy_decisions"
CHECK_DURATION: Final = "zta_check_duration_seconds"
STAGE_DURATION: Final = "zta_stage_duration_seconds"
LATE_ANSWERS: Final = "zta_late_answers"
CALLS_UNFINISHED: Final = "zta_calls_in_flight"
CALLS_FAILED: Final = "zta_calls_failed"
INTERNAL_ERRORS: Final = "zta_internal_errors"
OBSERVER_ERRORS: Final = "zta_observer_errors"
SPANS_EXPORTED: Final = "zta_spans_exported"
SPANS_DROPPED: Final = "zta_spans_dropped"
SPANS_QUEUE: Final = "zta_spans_queue_records"
CACHE_HITS: Final = "zta_cache_hits"
CACHE_MISSES: Final = "zta_cache_misses"
PUSHES: Final = "zta_metrics_pushes"
PUSH_FAILURES: Final = "zta_metrics_push_failures"
AUDIT_DROPPED: Final = "zta_audit_dropped"
AUDIT_UNSAMPLED: Final = "zta_audit_unsampled"
AUDIT_QUEUE: Final = "zta_audit_queue_records"
POLICY_LOADS: Final = "zta_policy_loads"
POLICY_RELOAD_FAILED: Final = "zta_policy_reload_failed"
POLICY_LOADED_AT: Final = "zta_policy_loaded_timestamp_seconds"
POLICY_TABLE: Final = "zta_policy_table"
POLICY_SOURCES: Final = "zta_policy_sources"
POLICY_RULES: Final = "zta_policy_rules"
POLICY_FAULTS: Final = "zta_policy_load_faults"
SHADOW_REQUESTS: Final = "zta_shadow_requests"
SHADOW_ERRORS: Final = "zta_shadow_errors"
SHADOW_DISAGREEMENTS: Final = "zta_shadow_disagreements"
KEY_FETCHES: Final = "zta_key_fetches"
KEY_AGE: Final = "zta_key_age_seconds"
KEYS_MISSING: Final = "zta_keys_missing"
BUNDLE_AGE: Final = "zta_trust_bundle_age_seconds"
BUNDLE_EXPIRY: Final = "zta_trust_bundle_expiry_timestamp_seconds"
OWN_EXPIRY: Final = "zta_own_certificate_expiry_timestamp_seconds"
BUILD: Final = "zta_build"
