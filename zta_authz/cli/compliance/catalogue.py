"""The tenets and controls of the report, and the checks that are evidence for them.

Tenets: NIST SP 800-207 (August 2020), section 2.1, paraphrased. Controls: NIST SP 800-53 Rev. 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.checks import (
    administration,
    enforcement,
    failure_modes,
    monitoring,
    network,
    pods,
    policy_rules,
    request_evidence,
    tokens,
    transport,
)
from zta_authz.cli.compliance.evidence import Check, Evidence, Requirement, gather

if TYPE_CHECKING:
    from zta_authz.cli.compliance.installation import Installation

_ZTA: Final = "SP 800-207, 2.1"
_CONTROLS: Final = "SP 800-53 Rev. 5"

REQUIREMENTS: Final = (
    Requirement("T1", _ZTA, "All data sources and computing services are resources", (
        "workloads, data stores and services that are not among the files",)),
    Requirement("T2", _ZTA, "All communication is secured, wherever in the network", (
        "that the mesh and the network plugin do what their objects say",
        "metrics and probes: plain HTTP on `health.listen`, bounded by network policies only")),
    Requirement("T3", _ZTA, "Access to a resource is granted for one session", (
        "sessions inside applications (cookies, connections to databases)",)),
    Requirement("T4", _ZTA, "Access follows from dynamic policy: identity, application, asset, behaviour", (
        "behaviour and the state of the client's device, unless tokens carry them as claims",)),
    Requirement("T5", _ZTA, "The integrity and posture of all assets is watched and measured", (
        "nodes, images' contents and known vulnerabilities, devices of users",)),
    Requirement("T6", _ZTA, "Authentication and authorization are dynamic and enforced before access", (
        "how issuers and certificate authorities verify whom they vouch for",)),
    Requirement("T7", _ZTA, "As much as possible is collected and used to improve", (
        "that somebody reads logs and alerts, and acts on them",)),
    Requirement("AC-4", _CONTROLS, "Information flow enforcement", (
        "whether the rules are those your organization approved",)),
    Requirement("SC-7", _CONTROLS, "Boundary protection", (
        "boundaries outside the cluster; that the network plugin enforces NetworkPolicies",)),
    Requirement("SC-8", _CONTROLS, "Transmission confidentiality and integrity", (
        "connections that neither the mesh nor zta-authz makes",)),
)  # fmt: skip

CHECKS: Final = (
    Check("decisions-known", "Settings and policies are available", ("T1", "T6", "AC-4"),
          "`--config` of zta-authz's containers, their ConfigMaps and `ZTA_` variables",
          policy_rules.decisions_are_known),
    Check("all-requests-asked", "Every request is checked by zta-authz", ("T1", "T3", "T6", "AC-4", "SC-7"),
          "AuthorizationPolicy CUSTOM `spec.rules`, `spec.selector`, `spec.targetRefs`; EnvoyFilter "
          "`workloadSelector`; SecurityPolicy `spec.targetRefs`; HTTPRoute; ExtAuthzPerRoute `disabled`; "
          "ExtAuthz `filter_enabled`; listeners of Envoy's configurations; "
          "labels of Namespaces",
          enforcement.every_request_is_asked),
    Check("fail-closed", "Requests are denied if zta-authz does not answer", ("T6", "AC-4", "SC-7"),
          "provider `failOpen`, ExtAuthz `failure_mode_allow`, SecurityPolicy `extAuth.failOpen`, EnvoyPatchPolicy",
          failure_modes.no_answer_is_a_denial, "no proxy calls zta-authz"),
    Check("answer-in-time", "Checks have a short timeout", ("T6",),
          "provider `timeout`, ExtAuthz `grpc_service.timeout`, SecurityPolicy `extAuth.timeout`",
          failure_modes.answers_in_time, "no proxy calls zta-authz"),
    Check("evidence-sent", "Proxies send certificates and all headers", ("T4", "T6", "T7"),
          "ExtAuthz `include_peer_certificate`, `encode_raw_headers`; EnvoyPatchPolicy",
          request_evidence.evidence_is_sent, "no proxy calls zta-authz"),
    Check("same-request", "Proxy and application interpret requests alike", ("T6", "AC-4"),
          "HttpConnectionManager `path_with_escaped_slashes_action`, `headers_with_underscores_action`; "
          "ClientTrafficPolicy `path.escapedSlashesAction`, `headers.withUnderscoresAction`; `paths.ambiguous`",
          request_evidence.requests_are_read_alike, "no proxy calls zta-authz"),
    Check("sessions-bounded", "Streams have a maximum duration", ("T3",),
          "HttpConnectionManager `common_http_protocol_options.max_stream_duration`; EnvoyPatchPolicy; "
          "BackendTrafficPolicy `timeout.http.maxStreamDuration`",
          request_evidence.sessions_are_bounded, "no proxy calls zta-authz"),
    Check("default-deny", "Requests are denied by default", ("T1", "T6", "AC-4", "SC-7"),
          "`semantics`, `default_action`", policy_rules.denial_is_the_default, "there is no zta-authz"),
    Check("no-allow-all", "No rule allows everything to everyone", ("T4", "T6", "AC-4"),
          "ALLOW rules of the policies", policy_rules.nobody_is_allowed_everything, "there is no zta-authz"),
    Check("callers-verified", "Callers' certificates are verified", ("T6", "AC-4", "SC-8"),
          "`peer.verify_certificate`, `peer.trust_proxy`", policy_rules.callers_are_verified, "there is no zta-authz"),
    Check("trust-anchored", "Trust bundles exist and are valid", ("T2", "T6", "SC-8"),
          "`bundles`, `workload_api`, TrustBundle", tokens.trust_is_anchored, "there is no zta-authz"),
    Check("tokens-for-us", "Tokens need an accepted issuer and audience", ("T4", "T6"),
          "RequestAuthentication `jwtRules`, IssuerPolicy `audiences`, `jwks.allow_http`",
          tokens.tokens_are_for_us, "no policy reads tokens"),
    Check("tokens-bounded", "Stolen tokens are of limited use", ("T3", "T4", "T6"),
          "IssuerPolicy `maxTokenAge`, `requireBound`; AccessPolicy `require.token`",
          tokens.tokens_are_short_lived_or_bound, "no policy reads tokens"),
    Check("revocation", "Stolen credentials can be refused", ("T5", "T6"),
          "RevocationList", policy_rules.revocation_is_possible, "there is no zta-authz"),
    Check("dynamic-policy", "Decisions depend on the current state", ("T3", "T4", "T6"),
          "`principals`, `requestPrincipals`, `when`, `condition`, times and `require` of rules",
          policy_rules.decisions_are_dynamic, "there is no zta-authz"),
    Check("changes-effective", "Changed policies take effect", ("T4", "T6"),
          "`reload`, `volumeMounts` of policies", policy_rules.changes_take_effect, "there is no zta-authz"),
    Check("clients-mtls", "Clients use mutual TLS", ("T2", "T6", "SC-8"),
          "PeerAuthentication `mtls`; DownstreamTlsContext `require_client_certificate`, `trust_chain_verification`, "
          "`tls_minimum_protocol_version`; ClientTrafficPolicy `tls`; Gateway `listeners`",
          transport.clients_use_mutual_tls, "no mesh, gateway or Envoy is among the files"),
    Check("authorizer-mtls", "zta-authz listens on mutual TLS or a Unix socket", ("T2", "SC-8"),
          "`listen`, `tls`, `insecure`", transport.authorizer_listens_securely, "there is no zta-authz"),
    Check("callers-named", "Permitted proxies are listed", ("T6", "AC-4", "SC-7"),
          "`tls.allowed_spiffe_ids`, `workloads`, `gateways`, `socket`", transport.callers_are_named,
          "there is no zta-authz"),
    Check("authorizer-verified", "Proxies verify zta-authz", ("T2", "T6", "SC-8"),
          "DestinationRule `tls.mode`; BackendTLSPolicy `subjectAltNames`; Envoy's cluster",
          transport.proxies_know_who_answers, "no proxy calls zta-authz"),
    Check("telemetry-encrypted", "Telemetry is sent over TLS", ("T2", "SC-8"),
          "`tracing.otlp.endpoint` and other endpoints of collectors", transport.telemetry_is_encrypted,
          "nothing is sent to a collector"),
    Check("network-default-deny", "Network traffic is denied by default", ("T1", "T2", "AC-4", "SC-7"),
          "NetworkPolicy `podSelector`, `policyTypes`", network.nothing_is_reached_by_default,
          "no workload is among the files"),
    Check("network-least", "Network rules name peers and ports", ("AC-4", "SC-7"),
          "NetworkPolicy `ingress`, `egress`", network.only_what_is_needed_is_reached,
          "no NetworkPolicy allows anything"),
    Check("pods-restricted", "Pods have no privileges", ("T5", "SC-7"),
          "`securityContext` of pods and containers, `volumes`, `hostNetwork`", pods.pods_are_restricted,
          "no workload is among the files"),
    Check("namespaces-restricted", "Namespaces refuse privileged pods", ("T5",),
          "Namespace label `pod-security.kubernetes.io/enforce`", pods.namespaces_refuse_others,
          "no workload is among the files"),
    Check("images-pinned", "Images are pinned by digest", ("T5",), "`image`", pods.images_are_pinned,
          "no workload is among the files"),
    Check("no-api-rights", "Pods have no rights in the Kubernetes API", ("T5", "T6"),
          "`automountServiceAccountToken`, RoleBinding, ClusterRoleBinding", pods.pods_have_no_rights,
          "no workload is among the files"),
    Check("decision-log", "Decisions are recorded", ("T7", "AC-4"),
          "`audit.sink`, `audit.on_full`, `audit.sample_allows`", monitoring.decisions_are_recorded,
          "there is no zta-authz"),
    Check("log-tamper-evident", "Records reveal tampering", ("T5", "T7"),
          "`audit.sink`, `audit.checkpoint`", monitoring.records_show_tampering, "nothing is recorded"),
    Check("administrator-known", "Decision points and administrator know each other", ("T2", "T6", "SC-8"),
          "`administrator.follow`, `administrator.tls.spiffe_ids`, `administrator.views`",
          administration.views_are_authenticated, "no administrator is followed"),
    Check("access-log", "Every change of access is kept", ("T3", "T5", "T7"),
          "`administrator.access_log`, `administrator.store`, `replicas`, `volumeMounts`, `volumeClaimTemplates`",
          administration.changes_of_access_are_kept, "there is no administrator"),
    Check("metrics-read", "Metrics are scraped", ("T5", "T7", "SC-7"),
          "`health.listen`, PodMonitor, ServiceMonitor, annotation `prometheus.io/scrape`",
          monitoring.metrics_are_scraped, "there is no zta-authz"),
    Check("alerts", "Alerts are defined", ("T5", "T7", "SC-7"), "PrometheusRule", monitoring.alerts_are_defined,
          "there is no zta-authz"),
    Check("traces", "Requests are traced", ("T7",), "`tracing.otlp.endpoint`", monitoring.requests_are_traced,
          "there is no zta-authz"),
)  # fmt: skip


def judge(installation: Installation) -> list[Evidence]:
    """Run all checks, in the order of the catalogue."""
    return [gather(check, installation) for check in CHECKS]
