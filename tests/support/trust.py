"""Requests with every fact good, and trust models, for tests of trust."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.fakes.facts import FixedFacts, FixedOpener
from tests.support.policies import identity, request, snapshot
from zta_authz.model.facts import DeviceFacts, NetworkFacts, known
from zta_authz.model.options import Options
from zta_authz.model.trust import ResourceClass
from zta_authz.pdp.models import CompiledModels
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.facts import Fact
    from zta_authz.trust.assessment import CompiledTrustModel

NOW = 1_800_000_000.0
MODEL = "apiVersion: zta.dev/v1\nkind: TrustModel\nmetadata: {name: m, namespace: default}\n"
USER = {"amr": ["pwd", "hwk"], "account_created_at": NOW - 400 * 86400, "security_violations": 0}
DEVICE = dict.fromkeys(("managed", "encrypted", "firewall", "antivirus"), True)
NETWORK = NetworkFacts(
    country=known("DE"), asn=known(64500), anonymous=known(False), reputation=known(90), corporate=known(False)
)
MEASURED = "  allowedCountries: [DE]\n  components: {behavior: {assume: 100}}\n"
"""What a model needs for a request with every fact good to lose nothing."""


def trust_model(spec: str = MEASURED) -> CompiledTrustModel:
    """The one compiled model of a document with this `spec`."""
    models = snapshot(MODEL + "spec:\n" + spec if spec else MODEL + "spec: {}\n").models
    assert isinstance(models, CompiledModels)
    (model,) = models.trust_models
    return model


def inputs(
    user: Mapping[str, Any] | None = USER,
    device: Mapping[str, Fact | bool] | None = DEVICE,
    network: NetworkFacts = NETWORK,
    resource: str = "",
    now: float = NOW,
) -> Inputs:
    """A request with these claims, device fields and network facts; None for no token, or no device."""
    fields = {name: known(fact) if isinstance(fact, bool) else fact for name, fact in (device or {}).items()}
    found = DeviceFacts("laptop-1" if device is not None else "", "certificate", "default/fleet", fields)
    facts = FixedFacts(network, found, resource_class=ResourceClass(resource) if resource else None)
    caller = identity(claims=user) if user is not None else identity()
    return Inputs(request(), replace(caller), Options(), now, None, FixedOpener(facts))
