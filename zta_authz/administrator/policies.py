"""The policies by which the administrator decides, and the keys that verify its callers; both are kept up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.administrator.operator_authorization import LABELS, operator_options
from zta_authz.policy_sources.files import SnapshotHolder
from zta_authz.policy_sources.reloader import PolicySet
from zta_authz.service.loading import build_jwks, load
from zta_authz.service.reloading import Reloading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zta_authz.authn.revocation import DynamicRevocations
    from zta_authz.errors import Fault
    from zta_authz.keys.outcomes import FetchOutcome
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.entitlements import CompiledEntitlement
    from zta_authz.settings import Settings

KEYS_WAIT_SECONDS = 2.0


def _ignore(_: Sequence[Fault]) -> None:
    pass


class OperatorPolicies:
    """The documents of `policies`, compiled for the workload `zta-admin`. Belongs to one event loop.

    `faults` are those of the last files that were refused, () once valid ones are in force. `tls` has our certificate.
    """

    def __init__(
        self,
        settings: Settings,
        revocations: DynamicRevocations,
        on_change: Callable[[], None],
        labels: Mapping[str, str] = LABELS,
        on_refusal: Callable[[Sequence[Fault]], None] = _ignore,
    ) -> None:
        """Load everything. Raises `FaultsError`.

        `on_change` is called when other documents are in force, `on_refusal` when changed files have faults. `labels`
        are those of another workload of the administrator.
        """
        options = operator_options(settings.options(), labels)
        snapshot, authorities, self._trust, self.tls = load(settings, options, _nothing, _no_outcome)
        self.snapshots = SnapshotHolder()
        self.faults: tuple[Fault, ...] = ()
        self._on_change = on_change
        self._on_refusal = on_refusal
        self._jwks = build_jwks(settings, authorities, _no_outcome)
        current = self.snapshots.current
        policies = PolicySet("policies", settings.policies, current, self._publish, self._refuse, self._keep)
        self._reloading = Reloading(settings, options, [policies])
        snapshot.verifier.use_revocations(revocations)
        self._apply(snapshot)

    @property
    def current(self) -> Snapshot:
        """The documents in force."""
        snapshot = self.snapshots.current()
        if snapshot is None:  # `__init__` has published one
            raise RuntimeError("no policies")
        return snapshot

    def entitlements(self) -> Mapping[str, CompiledEntitlement]:
        """The entitlements in force, by full name."""
        return self.current.entitlements

    def obstacles(self) -> tuple[str, ...]:
        """Why callers can't be verified yet."""
        return self._trust.obstacles()

    async def start(self) -> None:
        """Fetch keys and bundles, then watch the files."""
        await self._jwks.start(KEYS_WAIT_SECONDS)
        await self._trust.start(KEYS_WAIT_SECONDS)
        self._reloading.start()

    def reload(self) -> None:
        """Read the files soon."""
        self._reloading.ask()

    async def close(self) -> None:
        """Stop watching and fetching."""
        await self._reloading.close()
        await self._jwks.close()
        await self._trust.close()

    def _publish(self, snapshot: Snapshot) -> None:
        self._apply(snapshot)
        self._on_change()

    def _apply(self, snapshot: Snapshot) -> None:
        self._trust.bind(snapshot.verifier.bundle_slot)
        if self.tls is not None:
            self.tls.revocations.current = snapshot.verifier.revocations
        self._jwks.bind(snapshot.verifier.key_slots)
        self.snapshots.publish(snapshot)
        self.faults = ()

    def _refuse(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        self._on_refusal(faults)

    def _keep(self) -> None:
        self.faults = ()


def _nothing() -> None:
    pass


def _no_outcome(_host: str, _outcome: FetchOutcome) -> None:
    pass
