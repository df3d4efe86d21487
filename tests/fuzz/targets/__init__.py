"""Every fuzz target, by name. A module a target; each begins with the invariant it is about."""

from __future__ import annotations

from tests.fuzz.targets import (
    ambiguity,
    certificates,
    check_request,
    facts,
    http2,
    inventories,
    jwks,
    network_files,
    policy_documents,
    request_files,
    settings,
    tokens,
)

TARGETS = {
    target.name: target
    for target in (
        check_request.TARGET,
        policy_documents.TARGET,
        tokens.TARGET,
        certificates.TARGET,
        ambiguity.TARGET,
        settings.TARGET,
        jwks.TARGET,
        request_files.TARGET,
        http2.TARGET,
        inventories.TARGET,
        network_files.TARGET,
        facts.TARGET,
    )
}
