"""The names of the schemas, without importing what builds them."""

from __future__ import annotations

from typing import Final

REQUEST: Final = "Request"
"""The schema of request files, which have no `kind`."""
ALL: Final = "all"
"""The schema that chooses by `apiVersion` and `kind`."""
PURPOSES: Final = {
    "AccessPolicy": "which requests are allowed, denied or recorded",
    "TrustBundle": "the authorities of a SPIFFE trust domain",
    "RevocationList": "revoked credentials",
    "IssuerPolicy": "limits on the tokens of one issuer",
    "ApiKeySet": "client programs and their API keys",
    "TrustModel": "how trust in a request is computed",
    "DeviceInventory": "devices, and how the device of a request is identified",
    "ResourceClassification": "how sensitive resources are",
    "AccessEntitlement": "who may have access for a while, and who approves",
    "AccessGrant": "a grant of an entitlement",
    "SignalSource": "a transmitter of security events, and what its events do",
    "PolicyTest": "requests with the decisions that are expected",
    REQUEST: "a request file, which has no `kind`",
    ALL: "any document, by its `kind`",
}
"""What each schema is for, by name."""
NAMES: Final = tuple(PURPOSES)
KINDS: Final = NAMES[:-2]
"""The kinds of `zta.dev/v1`."""
