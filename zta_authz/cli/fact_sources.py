"""Loads the facts that settings name, for commands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zta_authz.cli.fact_arguments import ASSUMED
from zta_authz.errors import FaultsError, collect_faults
from zta_authz.model.facts import NO_FACTS, FactSlot
from zta_authz.policy.rules.device_identity import BY_ID, InventoryDevices

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.model.facts import DeviceFacts, FactViews
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.fact_reader import DeviceIdentifier
    from zta_authz.settings import Settings


def load_views(settings: Settings, snapshot: Snapshot) -> FactViews:
    """The views of the networks that `settings` name and of the inventories of `snapshot`.

    An inventory is read only if `facts.directory` is set: without it, devices are absent. Raises `FaultsError`.
    """
    sources, directory = settings.networks.sources(), settings.facts.directory
    if not sources.configured and directory is None:
        return NO_FACTS
    from zta_authz.facts.devices import DeviceRefresher
    from zta_authz.facts.networks import NetworkDatabases

    slot = FactSlot()
    faults: list[Fault] = []
    if sources.configured:
        with collect_faults(faults):
            slot.replace_networks(NetworkDatabases(sources))
    if directory is not None:
        with collect_faults(faults):
            DeviceRefresher(directory, slot, lambda _: None).load(snapshot.models.inventories)
    if faults:
        raise FaultsError(faults)
    return slot.views


def from_inventory(
    assumed: DeviceFacts, views: FactViews, identifier: DeviceIdentifier | None, now: float
) -> DeviceFacts:
    """The device with the assumed id as its inventory gives it at `now`, with the fields that are assumed instead.

    `assumed` itself if no id is assumed, or if the inventory does not have it.
    """
    if views.devices is None or not isinstance(identifier, InventoryDevices) or assumed.device_id in ("", ASSUMED):
        return assumed
    inventory = identifier.inventory
    record = views.devices.find(inventory.full_name, inventory.source, BY_ID + assumed.device_id)
    if record is None:
        return assumed
    device = identifier.facts_of(record, ASSUMED, now)
    return replace(device, fields={**(device.fields or {}), **(assumed.fields or {})})
