"""Check the privileges of workloads: Pod Security Standard `restricted` and more, pinned images, no API access."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from zta_authz.cli.compliance.evidence import Finding, Gap, Satisfied, Unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.cli.compliance.installation import Installation
    from zta_authz.cli.compliance.values import Value

_DIGEST: Final = re.compile(r"[^@\s]+@sha256:([0-9a-f]{64})")
_HOST_FIELDS: Final = ("hostNetwork", "hostPID", "hostIPC")
_VOLUMES: Final = frozenset(("configMap", "secret", "emptyDir", "csi", "projected", "downwardAPI", "ephemeral",
                             "persistentVolumeClaim"))  # fmt: skip
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_EVERYBODY: Final = ("system:serviceaccounts", "system:authenticated", "system:unauthenticated")
_SECCOMP: Final = ("RuntimeDefault", "Localhost")


def pods_are_restricted(installation: Installation) -> Iterator[Finding]:
    """Pods run without root, capabilities, escalation or host access, with a read-only root file system and seccomp."""
    for document, pod in installation.pods:
        spec = pod.get("spec") or pod
        for field in _HOST_FIELDS:
            value = spec.get(field)
            if value is not None and value.flag() is not False:
                yield Gap(f"{document.root.owner} shares the host's namespaces", f"remove `{field}`", value.location)
        for volume in spec.items("volumes"):
            kinds = set(volume.fields()) - {"name"}
            if not kinds <= _VOLUMES:
                remedy = "use a volume type that does not expose the host"
                yield Gap(f"a volume of {', '.join(sorted(kinds))}", remedy, volume.location)
    for _, pod, container in installation.containers:
        yield from _container(pod, container)


def _container(pod: Value, container: Value) -> Iterator[Finding]:
    context = container.get("securityContext")
    required: tuple[tuple[tuple[str, ...], Any, bool], ...] = (
        (("runAsNonRoot",), True, True),
        (("readOnlyRootFilesystem",), True, False),
        (("allowPrivilegeEscalation",), False, False),
    )
    gaps = []
    for path, value, of_pod in required:
        setting = _setting(pod, container, path, of_pod)
        if setting is None or setting.flag() is not value:
            gaps.append(Gap(f"`{path[-1]}` is not {str(value).lower()}", f"write `{path[-1]}: {str(value).lower()}`",
                            (setting or context or container).location))  # fmt: skip
    seccomp = _setting(pod, container, ("seccompProfile", "type"), True)
    if seccomp is None or seccomp.text() not in _SECCOMP:
        gaps.append(Gap("system calls are not filtered", "write `seccompProfile: {type: RuntimeDefault}`",
                        (seccomp or context or container).location))  # fmt: skip
    for field in ("runAsUser", "runAsGroup"):
        user = _setting(pod, container, (field,), True)
        if user is not None and user.plain() == 0:
            gaps.append(Gap(f"`{field}` is 0", "use a dedicated user", user.location))
    if context is None or context.plain("capabilities", "drop") != ["ALL"] or context.items("capabilities", "add"):
        gaps.append(
            Gap("capabilities are not dropped", "write `capabilities: {drop: [ALL]}`", (context or container).location)
        )
    if context is not None and context.flag("privileged"):
        gaps.append(Gap("the container is privileged", "remove `privileged`", context.location))
    yield from gaps
    if not gaps and context is not None:
        yield Satisfied(context.location, "non-root, read-only, no capabilities, seccomp")


def _setting(pod: Value, container: Value, path: tuple[str, ...], of_pod: bool) -> Value | None:
    setting = container.get("securityContext", *path)
    return pod.get("spec", "securityContext", *path) if setting is None and of_pod else setting


def namespaces_refuse_others(installation: Installation) -> Iterator[Finding]:
    """Namespaces of workloads admit only `restricted` pods."""
    namespaces = {namespace.name: namespace for namespace in installation.of_kind("Namespace")}
    for name in sorted(installation.workloads):
        namespace = namespaces.get(name)
        if namespace is None:
            yield Unseen(f"the labels of namespace `{name}` are not among the files")
            continue
        label = namespace.root.get("metadata", "labels", _ENFORCE)
        if label is not None and label.text() == "restricted":
            yield Satisfied(label.location, "restricted")
        else:
            remedy = f"label the namespace `{_ENFORCE}: restricted`"
            yield Gap(
                f"namespace `{name}` admits pods that are not restricted", remedy, (label or namespace.root).location
            )


def images_are_pinned(installation: Installation) -> Iterator[Finding]:
    """Images are named by digest: a tag can be moved, a digest can't."""
    for _, _, container in installation.containers:
        image = container.get("image")
        digest = None if image is None else _DIGEST.fullmatch(image.text())
        if image is None or digest is None:
            remedy = "name the image by `@sha256:…`"
            yield Gap("the image is not pinned by a digest", remedy, (image or container).location)
        elif not digest[1].strip("0"):
            remedy = "insert the digest of the image that you built"
            yield Gap("the digest is a placeholder, so the image is unknown", remedy, image.location)
        else:
            yield Satisfied(image.location, image.text())


def pods_have_no_rights(installation: Installation) -> Iterator[Finding]:
    """No token of the Kubernetes API is mounted, and ServiceAccounts of pods have no roles."""
    accounts = set()
    for document, pod in installation.pods:
        token = pod.get("spec", "automountServiceAccountToken")
        if token is not None and token.flag() is False:
            yield Satisfied(token.location, "false")
        else:
            at = (token or pod.get("spec") or pod).location
            yield Gap("a token of the Kubernetes API is mounted", "write `automountServiceAccountToken: false`", at)
        for token in (
            source for volume in pod.items("spec", "volumes") for source in volume.items("projected", "sources")
        ):
            given = token.get("serviceAccountToken")
            if given is not None and not given.text("audience"):
                yield Gap(
                    "a volume has a token of the Kubernetes API", "set its `audience`, or remove it", given.location
                )
        accounts.add((document.namespace, pod.text("spec", "serviceAccountName") or "default"))
    for binding in installation.of_kind("RoleBinding", "ClusterRoleBinding"):
        for subject in binding.root.items("subjects"):
            name = (subject.text("namespace") or binding.namespace, subject.text("name"))
            everybody = subject.text("kind") == "Group" and name[1].startswith(_EVERYBODY)
            if everybody or (subject.text("kind") == "ServiceAccount" and name in accounts):
                yield Gap(f"`{name[1]}` has rights in the Kubernetes API", "remove the binding", subject.location)
