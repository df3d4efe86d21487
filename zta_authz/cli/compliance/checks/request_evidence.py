"""Check that proxies send certificates and all headers, parse requests strictly and limit streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied
from zta_authz.cli.compliance.ext_authz_clients import asking_filters, custom_policies, merged_into, security_policies
from zta_authz.cli.compliance.installation import CONNECTION_MANAGER, EXT_AUTHZ, Installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.values import Document, Value

MAX_STREAM_SECONDS: Final = 3600.0
_EVIDENCE: Final = ("include_peer_certificate", "encode_raw_headers")


def evidence_is_sent(installation: Installation) -> Iterator[Finding]:
    """Proxies send the peer's certificate, and send repeated headers separately."""
    messages = installation.messages(EXT_AUTHZ)
    for message in messages:
        for field in () if message.merged else _EVIDENCE:
            yield _expect_true(message.value, field)
    for policy in custom_policies(installation):
        near = merged_into(installation, policy, EXT_AUTHZ)
        for field in _EVIDENCE:
            given = [message for message in near if message.get(field) is not None]
            yield from (_expect_true(message, field) for message in given)
            if not given:
                message_ = f"no EnvoyFilter sets `{field}`, which the provider can't set"
                yield Gap(message_, "add an EnvoyFilter like k8s/istio/envoy-filter.yaml", policy.root.location)
    for policy in security_policies(installation):
        for field in _EVIDENCE:
            yield from _patched(installation, policy, f"/{field}", field)


def _expect_true(value: Value, field: str) -> Finding:
    setting = value.get(field)
    if setting is not None and setting.flag() is True:
        return Satisfied(setting.location, "true")
    return Gap(f"`{field}` is not true", f"write `{field}: true`", (setting or value).location)


def _patched(installation: Installation, policy: Document, ending: str, what: str) -> Iterator[Finding]:
    """Check that an EnvoyPatchPolicy of the namespace adds the field whose JSON path has this ending."""
    for patch in installation.of_kind_in("EnvoyPatchPolicy", [policy.namespace]):
        for patch_item in patch.root.items("spec", "jsonPatches"):
            value = patch_item.get("operation", "value")
            if patch_item.text("operation", "path").endswith(ending) and value:
                ok = value.flag() is not False
                remedy = f"write `value: true` for `{what}`"
                yield (
                    Satisfied(value.location, value.shown) if ok else Gap(f"`{what}` is false", remedy, value.location)
                )
                return
    message = f"no EnvoyPatchPolicy sets `{what}`, which SecurityPolicy can't set"
    yield Gap(message, "add an EnvoyPatchPolicy like k8s/overlays/envoy-gateway/evidence.yaml", policy.root.location)


def requests_are_read_alike(installation: Installation) -> Iterator[Finding]:
    """Proxies refuse what applications may interpret differently: `%2F` in paths, `_` in names of headers."""
    required = (
        (("path_with_escaped_slashes_action",), "REJECT_REQUEST"),
        (("common_http_protocol_options", "headers_with_underscores_action"), "REJECT_REQUEST"),
    )
    for holder, managers in _connection_managers(installation):
        for path, value in required:
            setting = next(filter(None, (manager.get(*path) for manager in managers)), None)
            if setting is not None and setting.text() == value:
                yield Satisfied(setting.location, value)
            else:
                at = setting or (managers[0] if managers else holder.root)
                yield Gap(f"`{'.'.join(path)}` is not {value}", f"write `{path[-1]}: {value}`", at.location)
    for policy in installation.of_kind("ClientTrafficPolicy"):
        for path, value in ((("path", "escapedSlashesAction"), "RejectRequest"),
                            (("headers", "withUnderscoresAction"), "RejectRequest")):  # fmt: skip
            setting = policy.root.get("spec", *path)
            if setting is not None and setting.text() == value:
                yield Satisfied(setting.location, value)
            else:
                yield Gap(f"`{'.'.join(path)}` is not {value}", f"write `{path[-1]}: {value}`", policy.root.location)
    for authorizer in installation.authorizers:
        location = authorizer.setting("paths", "ambiguous")
        if authorizer.settings.options().accept_ambiguous_paths:
            message = "ambiguous paths are matched without normalization"
            yield Gap(message, "write `paths: {ambiguous: reject}`", location)
        else:
            yield Satisfied(location, "reject")


def _connection_managers(installation: Installation) -> Iterator[tuple[Document, list[Value]]]:
    """Yield each client of zta-authz with the messages that configure its connection manager."""
    managers = installation.messages(CONNECTION_MANAGER)
    for message in managers:
        if not message.merged:
            yield message.holder, [message.value]
    for holder in custom_policies(installation) or asking_filters(installation):
        yield holder, merged_into(installation, holder, CONNECTION_MANAGER)


def sessions_are_bounded(installation: Installation) -> Iterator[Finding]:
    """Streams have a maximum duration: a proxy asks once, when a stream opens, so it limits how long an allow lasts."""
    path = ("common_http_protocol_options", "max_stream_duration")
    for holder, managers in _connection_managers(installation):
        yield _bounded([manager.get(*path) for manager in managers], (managers[0] if managers else holder.root))
    for policy in security_policies(installation):
        patches = [
            patch_item.get("operation", "value")
            for patch in installation.of_kind_in("EnvoyPatchPolicy", [policy.namespace])
            for patch_item in patch.root.items("spec", "jsonPatches")
            if patch_item.text("operation", "path").endswith("/max_stream_duration")
        ]
        traffic = [
            traffic_policy.root.get("spec", "timeout", "http", "maxStreamDuration")
            for traffic_policy in installation.of_kind_in("BackendTrafficPolicy", [policy.namespace])
        ]
        yield _bounded([*patches, *traffic], policy.root)


def _bounded(values: list[Value | None], at: Value) -> Finding:
    duration = next(filter(None, values), None)
    seconds = None if duration is None else duration.seconds()
    if duration is None or seconds is None or not 0 < seconds <= MAX_STREAM_SECONDS:
        message = f"streams may last too long after their check ({duration.shown if duration else 'no limit'})"
        return Gap(message, "set `max_stream_duration`, for example to 900s", (duration or at).location)
    return Satisfied(duration.location, duration.shown)
