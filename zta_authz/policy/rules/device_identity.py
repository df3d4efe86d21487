"""Identifies the device behind a request, and ages what its inventory says.

A device is bound to a request only by a key: the verified certificate of this connection, then a claim of a token that
is bound to its presenter. A header that names a device is never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from zta_authz.model.claims import claim_at
from zta_authz.model.device_documents import CertificateKey
from zta_authz.model.facts import ABSENT, DeviceFacts, Fact, Unknown, known, steady_around
from zta_authz.model.identity import Binding, PeerTrust
from zta_authz.policy.rules.fact_values import LAST_SEEN
from zta_authz.policy.rules.signal_facts import COMPLIANT, device_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.device_documents import DeviceInventory
    from zta_authz.model.facts import DeviceRecord, DeviceView
    from zta_authz.model.identity import Identity, Peer
    from zta_authz.model.options import Workload
    from zta_authz.model.signals import SignalView
    from zta_authz.policy.rules.inputs import Inputs

CLOCK_SKEW: Final = 300.0
"""How far in the future, in seconds, a report may lie."""
BY_ID: Final = "id:"
BY_CERTIFICATE: Final = "certificate:"
"""Prefixes of identifiers in a `DeviceView`."""


@dataclass(frozen=True, slots=True)
class InventoryDevices:
    """A compiled DeviceInventory."""

    inventory: DeviceInventory

    def identify(self, inputs: Inputs, devices: DeviceView, signals: SignalView | None = None) -> DeviceFacts:
        """The device and its fields at `inputs.now`. Certificate and token that name two devices are conflicting.

        What `signals` say of the device counts for the field `compliant`, if it is newer than the inventory.
        """
        device = self._identify(inputs, devices)
        if signals is None or not device.device_id:
            return device
        return self._with_signals(device, signals, inputs.now)

    def _with_signals(self, device: DeviceFacts, signals: SignalView, now: float) -> DeviceFacts:
        fields, changes = device_signals(
            signals, device.inventory, device.device_id, device.field(COMPLIANT), self.inventory.posture_max_age, now
        )
        since, until = steady_around(now, changes)
        return DeviceFacts(
            device.device_id,
            device.identified_by,
            device.inventory,
            {**(device.fields or {}), **fields},
            since=max(since, device.since),
            until=min(until, device.until),
        )

    def _identify(self, inputs: Inputs, devices: DeviceView) -> DeviceFacts:
        name = self.inventory.full_name
        by_certificate = self._by_certificate(inputs, devices)
        claimed = self._claimed(inputs)
        if len(by_certificate) > 1:
            return self._conflicting()
        if by_certificate:
            certified = by_certificate[0]
            if claimed and claimed != certified.device_id:
                return self._conflicting()
            if certified.shared:  # which of them it is, nobody knows
                return self._conflicting()
            return self.facts_of(certified, "certificate", inputs.now)
        device = self._find(devices, BY_ID + claimed) if claimed else None
        if device is None:
            return DeviceFacts(inventory=name, since=-inf, until=inf)
        return self.facts_of(device, "token", inputs.now)

    def _by_certificate(self, inputs: Inputs, devices: DeviceView) -> list[DeviceRecord]:
        """The devices that the verified certificate names: several only if it has several URIs."""
        key, peer = self.inventory.certificate_key, inputs.identity.peer
        if key is None or peer is None or peer.trust is not PeerTrust.CERTIFICATE or peer.certificate_sha256 is None:
            return []
        identifiers: Iterable[str]
        if key is CertificateKey.SHA256:
            identifiers = (peer.certificate_sha256.hex(),)
        elif key is CertificateKey.SPIFFE_ID:
            identifiers = () if peer.spiffe_id is None else (str(peer.spiffe_id),)
        else:
            identifiers = self._own_names(peer, inputs.options.workload)
        prefix = BY_CERTIFICATE if self.inventory.source.certificate else BY_ID
        records = (self._find(devices, prefix + identifier) for identifier in identifiers)
        return list({record.device_id: record for record in records if record is not None}.values())

    def _own_names(self, peer: Peer, workload: Workload) -> Iterable[str]:
        """The identifiers that only mean something together with who issued the certificate.

        An authority may write any issuer name, serial number and URI into a certificate, except a SPIFFE ID of another
        trust domain. So these names count only in certificates of the workload's own trust domain.
        """
        names, spiffe_id = peer.certificate, peer.spiffe_id
        if names is None:
            return ()
        own = spiffe_id is not None and spiffe_id.trust_domain.name in (
            workload.trust_domain,
            *workload.trust_domain_aliases,
        )
        if self.inventory.certificate_key is CertificateKey.SAN_URI:
            return names.uris if own else tuple(uri for uri in names.uris if uri == str(spiffe_id))
        return (f"{names.serial:x}",) if own and names.issuer == self.inventory.certificate_issuer else ()

    def _find(self, devices: DeviceView, identifier: str) -> DeviceRecord | None:
        return devices.find(self.inventory.full_name, self.inventory.source, identifier)

    def _claimed(self, inputs: Inputs) -> str:
        """The device that the token names, "" if it names none or is not bound to its presenter."""
        path = self.inventory.token_claim
        if not path or inputs.claims is None:
            return ""
        if not self.inventory.accept_unbound and not _is_bound(inputs.identity):
            return ""
        value = claim_at(inputs.claims, path)
        return value if isinstance(value, str) else ""

    def facts_of(self, device: DeviceRecord, identified_by: str, now: float) -> DeviceFacts:
        """What the inventory says about one of its devices, aged at `now`."""
        name, inventory = self.inventory.full_name, self.inventory
        unknown = problem_of(inventory, device, now)
        fields: dict[str, Fact] = {}
        for (label, _), value in zip(inventory.source.fields, device.values, strict=True):
            if unknown is not None:
                fields[label] = Fact(None, unknown, device.posture_at, name)
            else:
                fields[label] = ABSENT if value is None else known(value, device.posture_at, name)
        if device.seen_at is not None and not device.conflicting:
            fields[LAST_SEEN] = known(int(device.seen_at), device.seen_at, name)
        since, until = steady_around(now, _changes_of(inventory, device))
        return DeviceFacts(device.device_id, identified_by, name, fields, since=since, until=until)

    def _conflicting(self) -> DeviceFacts:
        name = self.inventory.full_name
        fields = {label: Fact(None, Unknown.CONFLICTING, None, name) for label, _ in self.inventory.source.fields}
        return DeviceFacts("", "", name, fields, since=-inf, until=inf)


def _is_bound(identity: Identity) -> bool:
    """Whether a key binds the token to its presenter. A SPIFFE ID in the proxy's words is not a key."""
    if identity.binding is Binding.SPIFFE_ID:
        return identity.peer is not None and identity.peer.trust is PeerTrust.CERTIFICATE
    return identity.binding is not None


def problem_of(inventory: DeviceInventory, device: DeviceRecord, now: float) -> Unknown | None:
    """Why what the inventory says about a device does not count at `now`; None if it does."""
    posture = _age_problem(device.posture_at, now, inventory.posture_max_age)
    seen = _age_problem(device.seen_at, now, inventory.seen_max_age) if inventory.source.seen_time else None
    return Unknown.CONFLICTING if device.conflicting else seen or posture


def _age_problem(at: float | None, now: float, max_age: float) -> Unknown | None:
    """Why a report of `at` does not count at `now`. One without a time is stale from the beginning."""
    if at is None:
        return Unknown.STALE
    if now < at - CLOCK_SKEW:
        return Unknown.CONFLICTING
    return Unknown.STALE if now > at + max_age else None


def _changes_of(inventory: DeviceInventory, device: DeviceRecord) -> Iterator[float]:
    """The times at which `problem_of` may change."""
    for at, max_age in ((device.posture_at, inventory.posture_max_age), (device.seen_at, inventory.seen_max_age)):
        if at is not None:
            yield at - CLOCK_SKEW
            yield at + max_age
