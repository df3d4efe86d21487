"""Check the administrator: who may follow it, where it keeps its state, and whether its log reveals tampering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.authorizers import Authorizer
    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import FieldLocation
    from zta_authz.settings.administrator_model import ViewsSettings

_SECTION: Final = "administrator"
_SQLITE: Final = "sqlite://"
_LASTING: Final = "persistentVolumeClaim"
_FOLLOWED_IDS: Final = (_SECTION, "tls", "spiffe_ids")
_FOLLOWER_IDS: Final = (_SECTION, "views", "allowed_spiffe_ids")


def views_are_authenticated(installation: Installation) -> Iterator[Finding]:
    """Decision points follow only their administrator, only they may follow it, and none of them can act as it."""
    followers = {name for process in installation.administrators for name in _views(process).allowed_spiffe_ids}
    for authorizer in installation.authorizers:
        section = authorizer.settings.administrator
        if section.follow is None:
            continue
        if section.tls is None:
            yield Satisfied(authorizer.setting(_SECTION, "follow"), section.follow)
            continue
        shared = sorted(followers.intersection(section.tls.spiffe_ids))
        if shared:
            remedy = "give the administrator a ServiceAccount of its own"
            yield Gap(f"any `{shared[0]}` could act as the administrator", remedy, authorizer.setting(*_FOLLOWED_IDS))
        else:
            yield Satisfied(authorizer.setting(*_FOLLOWED_IDS), ", ".join(section.tls.spiffe_ids))
    for administrator in installation.administrators:
        for number, address in enumerate(_views(administrator).listen):
            if Endpoint.parse(address).is_unix:
                yield Satisfied(administrator.setting(_SECTION, "views", "listen", number), address)
            else:
                allowed = ", ".join(_views(administrator).allowed_spiffe_ids)
                yield Satisfied(administrator.setting(*_FOLLOWER_IDS), allowed)


def changes_of_access_are_kept(installation: Installation) -> Iterator[Finding]:
    """The access log and the store outlive the pod, the log has signed checkpoints, and the store is reached safely."""
    for administrator in installation.administrators:
        section = administrator.settings.administrator
        log = section.access_log
        at = administrator.setting(_SECTION, "access_log", "path")
        yield _on_a_volume(installation, administrator, log.path, "the access log", at)
        if log.checkpoint is None:
            message = "the whole access log can be rewritten without detection"
            yield Gap(message, "add `administrator.access_log.checkpoint`", at)
        else:
            interval = f"signed every {log.checkpoint.interval_seconds:g} s"
            yield Satisfied(administrator.setting(_SECTION, "access_log", "checkpoint"), interval)
        yield from _store(installation, administrator)


def _store(installation: Installation, administrator: Authorizer) -> Iterator[Finding]:
    url = administrator.settings.administrator.store.url
    at = administrator.setting(_SECTION, "store", "url")
    if url.startswith(_SQLITE):
        yield _on_a_volume(installation, administrator, url.removeprefix(_SQLITE)[1:], "the store", at)
        workload = administrator.workload
        replicas = None if workload is None else workload.root.get("spec", "replicas")
        if replicas is not None and replicas.plain() not in (0, 1):
            message = "several administrators have stores of their own, so each knows other grants"
            yield Gap(message, "use a Valkey, or write `replicas: 1`", replicas.location)
    elif url.startswith(("valkeys://", "rediss://", "unix://")):
        yield Satisfied(at, url)
    else:
        yield Gap("the connection to the store is not encrypted", "write a `valkeys://` URL", at)


def _on_a_volume(
    installation: Installation, administrator: Authorizer, path: str, what: str, at: FieldLocation
) -> Finding:
    """Check that the file at `path` is on a volume that outlives the pod."""
    workload, container = administrator.workload, administrator.container
    if workload is None or container is None:
        return Unseen(f"the files do not show whether {what} is on a volume that is kept", at)
    mounts = [mount for mount in container.items("volumeMounts") if path.startswith(f"{mount.text('mountPath')}/")]
    mount = max(mounts, key=lambda mount: len(mount.text("mountPath")), default=None)
    name = "" if mount is None else mount.text("name")
    claims = [claim.text("metadata", "name") for claim in workload.root.items("spec", "volumeClaimTemplates")]
    pod = next(pod for document, pod in installation.pods if document is workload)
    volumes = [volume for volume in pod.items("spec", "volumes") if volume.text("name") == name]
    if mount is not None and (name in claims or any(_LASTING in volume.fields() for volume in volumes)):
        return Satisfied(mount.location, f"{what} is on volume {name}")
    remedy = "mount a PersistentVolumeClaim, as k8s/components/administrator does"
    return Gap(f"{what} is lost with the pod", remedy, (mount or container).location)


def _views(administrator: Authorizer) -> ViewsSettings:
    return administrator.settings.administrator.views
