"""Settings of the tokens that zta-authz mints for applications."""

from __future__ import annotations

from zta_authz.settings.values import Section, Text


class MintingSettings(Section):
    """The issuer of minted tokens, and the file that lists the signing keys. Without an issuer nothing is minted."""

    issuer: Text | None = None
    keys: Text | None = None
