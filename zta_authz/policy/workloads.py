"""Find the workload that a request is for, and check that the calling proxy may ask for it.

A proxy may ask only for the workload with the proxy's own SPIFFE ID. A gateway that serves several workloads is listed
in the settings with their namespaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused
from zta_authz.model.options import UNIX_CALLER, Workload
from zta_authz.policy.rules.matchers import string_matcher

if TYPE_CHECKING:
    from zta_authz.model.options import Options
    from zta_authz.model.request import RequestAttributes

NAMESPACE_EXTENSION: Final = "zta.workload.namespace"
LABELS_EXTENSION: Final = "zta.workload.labels"
_MAX_LABELS: Final = 64


class WorkloadResolver:
    """Finds the workload of a request by the settings' `workloads` and `gateways`."""

    __slots__ = ("_by_principal", "_default", "_gateways", "_shared")

    def __init__(self, options: Options) -> None:
        self._default = options.workload
        self._by_principal = {named.principal: named.workload for named in options.workloads}
        self._gateways = [
            (gateway.caller, tuple(string_matcher(namespace) for namespace in gateway.namespaces))
            for gateway in options.gateways
        ]
        self._shared = bool(self._by_principal or self._gateways)

    def resolve(self, request: RequestAttributes, caller: str) -> Workload:
        """The workload that `request` is for.

        Args:
            request: its destination principal or context extensions name the workload.
            caller: the proxy's verified SPIFFE ID, "" on a Unix socket.

        Raises:
            Refused: if the workload is unknown, or the caller may not ask for it.
        """
        if not self._shared:
            return self._default
        namespace = request.context_extensions.get(NAMESPACE_EXTENSION)
        if namespace is not None:
            self._check_gateway(caller, namespace)
            labels = _labels(request.context_extensions.get(LABELS_EXTENSION, ""))
            return Workload(namespace, labels, self._default.trust_domain, self._default.trust_domain_aliases)
        principal = request.destination_principal or caller
        workload = self._by_principal.get(principal)
        if workload is None:
            raise Refused(Reason.WORKLOAD_UNKNOWN, f"no workload is listed for `{principal}`")
        if caller not in ("", principal):
            self._check_gateway(caller, workload.namespace)
        return workload

    def _check_gateway(self, caller: str, namespace: str) -> None:
        name = caller or UNIX_CALLER
        for listed, namespaces in self._gateways:
            if listed == name and any(matcher.matches(namespace) for matcher in namespaces):
                return
        raise Refused(Reason.CALLER_NOT_ALLOWED, f"`{name}` may not ask for namespace `{namespace}`")


def _labels(text: str) -> dict[str, str]:
    """Parse `key=value` pairs joined by commas."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if len(pairs) > _MAX_LABELS or not all(key and sign for key, sign, _ in pairs):
        raise Refused(Reason.WORKLOAD_UNKNOWN, f"context extension `{LABELS_EXTENSION}` is not `key=value,…`")
    return {key.strip(): value.strip() for key, _, value in pairs}
