"""Evidence and key snapshots to a verified Identity; raises `Refused` where evidence does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.errors import Fault
    from zta_authz.model.documents import RequestAuthentication, TrustBundle
    from zta_authz.model.identity import Identity
    from zta_authz.model.options import Options
    from zta_authz.model.request import Evidence, RequestAttributes


class IdentityVerifier:
    """Verifies peers and tokens against the keys compiled into it. Immutable but for bounded result caches."""

    def verify(self, request: RequestAttributes, evidence: Evidence, now: float) -> Identity:
        """The verified identity behind `request` at `now`. Raises `Refused`; never returns an unverified one."""
        raise NotImplementedError


def compile_verifier(
    authentications: Iterable[RequestAuthentication],
    bundles: Iterable[TrustBundle],
    options: Options,
    faults: list[Fault],
) -> IdentityVerifier:
    """The verifier for `options.workload`. Everything wrong with a key set or certificate goes to `faults`."""
    raise NotImplementedError
