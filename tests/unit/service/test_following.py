"""What a decision point says about the administrator that it follows: status, readiness and metrics."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.administrator.test_follow_service import until
from tests.unit.following.test_relay import change
from tests.unit.following.test_views import NOW, grant, revocation
from zta_authz.following.relay import RelayedView
from zta_authz.keys.trust import TrustRefresher, TrustSources
from zta_authz.model.facts import FactSlot
from zta_authz.service.following import Following
from zta_authz.settings import load_settings
from zta_authz.telemetry.following_metrics import FollowingMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zta_authz.ports import FollowingStatus


class Place:
    """A decision point whose view comes over a socket pair, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.relayed = RelayedView()
        self.ours, theirs = socket.socketpair()
        settings = load_settings(None, {"ZTA_ADMINISTRATOR__FOLLOW": "unix:/run/views.sock"})
        trust = TrustRefresher(TrustSources())
        self.following = Following(settings, trust, FactSlot(), lambda: None, lambda: self.now, theirs)

    def send(self, *updates: Any) -> None:
        for update in updates:
            self.relayed.apply(update, self.now)
        for frame in self.relayed.whole():
            self.ours.send(frame)

    @property
    def status(self) -> FollowingStatus:
        status = self.following.status()
        assert status is not None
        return status

    def metrics(self) -> dict[str, float]:
        families = FollowingMetrics(lambda: self.status, lambda: 77.0).collect()
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    made.following.start()
    yield made
    await made.following.close()
    made.ours.close()


async def test_before_the_first_view_it_is_not_ready_and_the_age_is_that_of_the_process(place: Place) -> None:
    assert place.following.obstacles() == ("nothing was received from the administrator yet",)
    assert (place.status.age, place.status.stale, place.following.blanket_denials()) == (None, True, ())
    assert place.metrics()["zta_following_view_age_seconds"] == 77.0


async def test_a_view_is_counted_and_ages(place: Place) -> None:
    place.relayed.connected = True
    place.send(change(grant("g1"), revocation("r1"), revocation("r2"), revision=9, full=True))
    await until(lambda: place.status.revision == 9)
    place.now += 5
    assert place.following.obstacles() == ()
    assert place.metrics() == {
        "zta_following_view_age_seconds": 5.0,
        "zta_following_connected": 1.0,
        "zta_following_stale": 0.0,
        "zta_following_revision": 9.0,
        "zta_following_itemsgrant": 1.0,
        "zta_following_itemsrevocation": 2.0,
        "zta_following_itemssignal": 0.0,
        "zta_following_streams_total": 0.0,
        "zta_following_refused_items_total": 0.0,
        "zta_following_refused_updates_total": 0.0,
    }


async def test_a_view_that_is_too_old_is_reported_and_leaves_the_service_ready(place: Place) -> None:
    place.send(change(grant("g1"), full=True))
    await until(lambda: place.status.revision == 1)
    place.now += 601
    assert place.status.stale
    assert place.following.obstacles() == ()
    (denied,) = place.following.blanket_denials()
    assert denied.startswith("what needs a grant or a signal")


def test_without_an_administrator_there_is_no_status() -> None:
    following = Following(
        load_settings(None, {}), TrustRefresher(TrustSources()), FactSlot(), lambda: None, lambda: NOW
    )
    assert (following.status(), following.obstacles(), following.blanket_denials()) == (None, (), ())
