"""Settings of webhooks: who is notified of changes of access by HTTP, such as approvers of requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from zta_authz.settings.field_types import HttpsUrl
from zta_authz.settings.values import Section, Text, distinct, invalid

MAX_WEBHOOKS = 20
REQUESTS = ("access.requested", "access.break_glass")


class WebhookSettings(Section):
    """One receiver. `url` may have a secret in its path; `secret_file` has the secret that signs (`whsec_…`)."""

    url: Annotated[HttpsUrl, Field(repr=False)]
    secret_file: Text
    kinds: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64), AfterValidator(distinct)] = REQUESTS


def _separate(webhooks: tuple[WebhookSettings, ...]) -> tuple[WebhookSettings, ...]:
    if len({webhook.url for webhook in webhooks}) < len(webhooks):
        raise invalid("two webhooks have the same `url`", "write one with the `kinds` of both")
    return webhooks


Webhooks = Annotated[tuple[WebhookSettings, ...], Field(max_length=MAX_WEBHOOKS), AfterValidator(_separate)]
