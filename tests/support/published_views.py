"""Waiting for the administrator's published view."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.administrator.view import PublishedView


async def wait_for_revision(view: PublishedView, revision: int) -> None:
    """Return when the view contains the commit `revision` of this epoch."""
    while view.revision < revision:
        await view.wait(view.epoch, view.revision, 5.0)
