"""Warnings of `zta-authz check` about rules: lint findings, and JWT rules whose keys can't be fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.errors import Fault
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.lint.fact_sources import FactSources
    from zta_authz.policy.lint.linter import Finding
    from zta_authz.policy.lint.unmatchable import CredentialSource
    from zta_authz.settings import Settings


def findings_of(snapshot: Snapshot, now: float, facts: FactSources | None = None) -> list[Finding]:
    """Lint the rules of `snapshot` as of `now`, in seconds since the epoch. `facts`: what gives facts, if known."""
    from zta_authz.pdp.paths import path_ambiguity, plain_authority
    from zta_authz.policy.lint.linter import lint

    options = snapshot.options

    def refused_path(path: str) -> str:
        return "" if options.accept_ambiguous_paths else path_ambiguity(path, "GET")

    def refused_host(host: str) -> bool:
        return options.strict and not plain_authority(host)

    sources = list(_sources(snapshot))
    return lint(
        snapshot.table, now=now, refused_path=refused_path, refused_host=refused_host, sources=sources, facts=facts
    )


def _sources(snapshot: Snapshot) -> Iterator[CredentialSource]:
    from zta_authz.model.documents import Selector
    from zta_authz.policy.lint.unmatchable import CredentialSource

    for document in snapshot.verifier.documents:
        clients = document.keys.clients if document.keys is not None else ()
        yield CredentialSource(
            document.selector,
            tuple(rule.issuer for rule in document.sources),
            tuple(client.name for client in clients),
            tuple(scope for client in clients for scope in client.scopes),
            any(rule.required for rule in document.sources),
        )
    yield CredentialSource(Selector(snapshot.options.root_namespace, {}), snapshot.verifier.svid_issuers)


def unreachable_keys(snapshot: Snapshot, settings: Settings) -> list[Fault]:
    """Return a warning for each JWT rule whose keys the settings do not permit to be fetched."""
    from zta_authz.errors import Fault
    from zta_authz.keys.addresses import AddressRules
    from zta_authz.keys.discovery import metadata_url
    from zta_authz.keys.http_client import checked_address
    from zta_authz.keys.outcomes import FetchFailed

    jwks = settings.jwks
    rules = AddressRules(jwks.allow_private_addresses, frozenset(jwks.private_hosts))
    faults = []
    for rule in (rule for document in snapshot.verifier.documents for rule in document.sources if rule.jwks is None):
        try:
            checked_address(rule.jwks_uri or metadata_url(rule.issuer), rules, allow_http=jwks.allow_http)
        except FetchFailed as failed:
            what = f"`{rule.jwks_uri}`" if rule.jwks_uri else f"discovery at issuer `{rule.issuer}`"
            message = f"keys are never fetched from {what}, so its tokens are never accepted: {failed.detail}"
            hint = (
                "use https and a public host, or inline `jwks`; `jwks.allow_http` and `jwks.private_hosts` allow more"
            )
            faults.append(Fault(rule.position.source, rule.position.line, rule.position.column, message, hint))
    return faults


def unmintable_tokens(snapshot: Snapshot, settings: Settings) -> list[Fault]:
    """Return a warning for each rule that orders a token although the settings name no issuer."""
    from zta_authz.errors import Fault

    if settings.minting.issuer is not None:
        return []
    message = "the settings have no `minting.issuer`, so no token is minted and this rule's requests are denied"
    hint = "set `minting`, or remove `mint`"
    return [
        Fault(policy.ref.position.source, rule.line, 1, message, hint)
        for policy in snapshot.table.policies
        for rule in policy.rules
        if rule.response is not None and rule.response.mint is not None
    ]
