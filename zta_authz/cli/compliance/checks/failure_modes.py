"""Check that proxies deny requests if zta-authz does not answer, and how long they wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen
from zta_authz.cli.compliance.ext_authz_clients import custom_policies, provider_of, security_policies
from zta_authz.cli.compliance.installation import EXT_AUTHZ, Installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.values import Value

MAX_TIMEOUT_SECONDS: Final = 1.0
_OPEN: Final = "requests are allowed if zta-authz does not answer"


def no_answer_is_a_denial(installation: Installation) -> Iterator[Finding]:
    """`failOpen` and `failure_mode_allow` are false in every proxy that asks; false is also their default."""
    for policy in custom_policies(installation):
        entry = provider_of(installation, policy)
        if entry is None:
            name = policy.root.text("spec", "provider", "name")
            message = (
                f"provider `{name}` is defined in istiod's MeshConfig: add its values file or ConfigMap to the input"
            )
            yield Unseen(message, policy.root.location)
        else:
            yield _fails_closed(entry, "failOpen")
    for message_ in installation.messages(EXT_AUTHZ):
        if not message_.merged or message_.value.get("failure_mode_allow") is not None:
            yield _fails_closed(message_.value, "failure_mode_allow")
    for policy in security_policies(installation):
        extension = policy.root.get("spec", "extAuth")
        if extension is not None:
            yield _fails_closed(extension, "failOpen")
    for document in installation.of_kind("EnvoyPatchPolicy"):
        for patch in document.root.items("spec", "jsonPatches"):
            yield from _patched_open(patch.get("operation") or patch)


def _patched_open(operation: Value) -> Iterator[Finding]:
    value = operation.get("value")
    named = "failure_mode_allow" in operation.text("path") and operation.flag("value") is not False
    within = value is not None and any(message.flag("failure_mode_allow") for message in value.below())
    if named or within:
        yield Gap(_OPEN, "remove the patch", operation.location)


def _fails_closed(value: Value, field: str) -> Finding:
    setting = value.get(field)
    if setting is None:
        return Satisfied(value.location, f"{field}: false (default)")
    if setting.flag() is False:
        return Satisfied(setting.location, "false")
    return Gap(_OPEN, f"write `{field}: false`", setting.location)


def answers_in_time(installation: Installation) -> Iterator[Finding]:
    """Proxies wait for an answer for a bounded time: a slow zta-authz must not block every request for minutes."""
    for policy in custom_policies(installation):
        entry = provider_of(installation, policy)
        if entry is None:
            yield Unseen("the provider's timeout is defined in istiod's MeshConfig", policy.root.location)
        else:
            yield _timeout_finding(entry, "Istio's default is 600 s", "timeout")
    for message in installation.messages(EXT_AUTHZ):
        timeout = message.value.get("grpc_service", "timeout")
        if timeout is not None or not message.merged:
            at = message.value.get("grpc_service") or message.value
            yield _timeout_finding(at, "", "timeout")
    for policy in security_policies(installation):
        extension = policy.root.get("spec", "extAuth")
        if extension is not None:
            yield _timeout_finding(extension, "Envoy Gateway's default is 10 s", "timeout")


def _timeout_finding(value: Value, default: str, field: str) -> Finding:
    remedy = f"write `{field}: 200ms`"
    timeout = value.get(field)
    if timeout is None:
        return (
            Gap(f"no timeout: {default}", remedy, value.location)
            if default
            else Satisfied(value.location, "200 ms (default)")
        )
    seconds = timeout.seconds()
    if seconds is None or not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        return Gap(
            f"the timeout is {timeout.shown}: it must be positive and at most {MAX_TIMEOUT_SECONDS:g} s",
            remedy,
            timeout.location,
        )
    return Satisfied(timeout.location, timeout.shown)
