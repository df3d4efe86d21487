"""The refresher with real, short times and a programmable loader. Tokens are verified at a fixed time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import ISSUER, Signer, jwks
from tests.unit.authn.support import accept, bearer, refusal, rule, verifier
from zta_authz.errors import Reason
from zta_authz.keys.http_client import MAX_SECONDS, HttpDocument
from zta_authz.keys.jwks import FetchedKeys, KeySource, read_keys
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.keys.refresh_schedule import Timing
from zta_authz.keys.refresher import MAX_FETCHES, JwksRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zta_authz.authn.verify import IdentityVerifier

URL = "https://keys.example/k"
OLD, NEW = Signer(kid="old", number=1), Signer(kid="new", number=2)
WALL = 5000.0
SELDOM = Timing()
OFTEN = Timing(
    refresh=0.02, min_refresh=0.02, max_refresh=60, max_stale=0.2, unknown_kid=0.05, retry=0.01, max_retry=0.02
)


class FakeLoader:
    """Returns the published keys; fails without any. `hold` makes fetches wait."""

    def __init__(self, *signers: Signer, max_age: float | None = None) -> None:
        self.texts: dict[str, str] = {URL: jwks(signers)} if signers else {}
        self.max_age = max_age
        self.requests: list[tuple[str, float]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.error: Exception = FetchFailed(FetchOutcome.UNREACHABLE, "no connection")
        self.closed = False

    def publish(self, *signers: Signer) -> None:
        self.texts[URL] = jwks(signers)

    async def load(self, source: KeySource, timeout_seconds: float) -> FetchedKeys:
        self.requests.append((source.address, timeout_seconds))
        await self.hold.wait()
        if source.address not in self.texts:
            raise self.error
        return read_keys(HttpDocument(self.texts[source.address].encode(), self.max_age), strict=True)

    async def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def refreshing(
    loader: FakeLoader, *subjects: IdentityVerifier, timing: Timing = SELDOM, patience: float = 5.0, **more: Any
) -> AsyncIterator[JwksRefresher]:
    refresher = JwksRefresher(loader, timing, clock=lambda: WALL, **more)
    refresher.bind([slot for subject in subjects for slot in subject.key_slots])
    await refresher.start(patience)
    try:
        yield refresher
    finally:
        await refresher.close()
        assert {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("keys of")} == set()


def fetching(url: str | None = URL, **changed: Any) -> IdentityVerifier:
    return verifier(rule(**({"jwks": None, "jwks_uri": url} | changed)))


async def until(reached: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not reached():  # noqa: ASYNC110 - what is waited for is other code's state
            await asyncio.sleep(0.002)


def accepts(subject: IdentityVerifier, signer: Signer) -> bool:
    try:
        accept(subject, bearer(signer.token()))
    except Exception:  # noqa: BLE001 - whatever it is, it is no acceptance
        return False
    return True


async def test_tokens_are_denied_at_once_until_keys_arrive_and_accepted_afterwards() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    loader.hold.clear()
    async with refreshing(loader, subject, patience=0):
        assert refusal(subject, bearer(OLD.token())) is Reason.TOKEN_KEY_UNKNOWN
        loader.hold.set()
        await until(lambda: accepts(subject, OLD))
    assert loader.closed


async def test_starting_waits_for_keys_but_not_for_an_issuer_that_does_not_answer() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject):
        assert accepts(subject, OLD)
    slow, other = FakeLoader(OLD), fetching()
    slow.hold.clear()
    async with asyncio.timeout(2), refreshing(slow, other, patience=0.05) as refresher:
        assert refresher.missing_issuers() == (ISSUER,)


async def test_rules_that_share_an_address_share_one_fetch_and_its_longest_time_limit() -> None:
    loader = FakeLoader(OLD)
    rules = [
        rule(issuer=name, jwks=None, jwks_uri=URL, timeout_seconds=time) for name, time in (("a", 2.0), ("b", 3.0))
    ]
    subject = verifier(*rules, rule(issuer="c", jwks=None, jwks_uri=URL, timeout_seconds=1.0))
    async with refreshing(loader, subject):
        assert loader.requests == [(URL, 3.0)]
        assert len({id(slot.current) for slot in subject.key_slots}) == 1
        assert len(subject.key_slots) == 3


async def test_a_rules_time_limit_is_capped() -> None:
    loader = FakeLoader(OLD)
    async with refreshing(loader, fetching(timeout_seconds=3600.0)):
        assert loader.requests == [(URL, MAX_SECONDS)]


async def test_inline_keys_are_left_alone() -> None:
    loader, subject = FakeLoader(), verifier(rule())
    before = subject.key_slots[0].current
    async with refreshing(loader, subject) as refresher:
        assert (loader.requests, subject.key_slots[0].current, refresher.missing_issuers()) == ([], before, ())
        assert refresher.age_of(subject.key_slots[0]) is None


async def test_rotated_keys_replace_the_old_ones_which_verify_nothing_any_more() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=OFTEN):
        assert accepts(subject, OLD)
        loader.publish(OLD, NEW)
        await until(lambda: accepts(subject, NEW))
        assert accepts(subject, OLD)
        loader.publish(NEW)
        await until(lambda: not accepts(subject, OLD))  # though its result was kept until now
        assert accepts(subject, NEW)
        assert refusal(subject, bearer(OLD.token())) is Reason.TOKEN_KEY_UNKNOWN


async def test_unchanged_keys_keep_cached_verifications() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=OFTEN):
        before = subject.key_slots[0].current
        await until(lambda: len(loader.requests) > 3)
        assert subject.key_slots[0].current is before


async def test_during_an_outage_keys_stay_until_they_expire_and_return_with_the_issuer() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=OFTEN) as refresher:
        text = loader.texts.pop(URL)
        await until(lambda: len(loader.requests) > 3)
        assert accepts(subject, OLD)
        assert refresher.missing_issuers() == ()
        await until(lambda: not accepts(subject, OLD))
        assert refresher.missing_issuers() == (ISSUER,)
        assert (refresher.age_of(subject.key_slots[0]), refresher.ages()) == (None, {})
        loader.texts[URL] = text
        await until(lambda: accepts(subject, OLD))


async def test_keys_are_dropped_on_time_even_while_a_fetch_hangs() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=OFTEN):
        loader.hold.clear()
        await until(lambda: not accepts(subject, OLD), 2)


async def test_a_response_without_a_usable_key_keeps_the_last_good_keys() -> None:
    loader, subject = FakeLoader(OLD, max_age=1), fetching()
    async with refreshing(loader, subject, timing=Timing(min_refresh=0.01, retry=0.01, unknown_kid=0.01)):
        loader.texts[URL] = '{"keys": []}'
        assert not accepts(subject, NEW)
        await until(lambda: len(loader.requests) > 2)
        assert accepts(subject, OLD)


async def test_a_thousand_tokens_with_unknown_keys_cause_one_fetch() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    forged = [bearer(Signer(kid=f"made up {number}", number=3).token()) for number in range(1000)]
    async with refreshing(loader, subject, timing=Timing(unknown_kid=1.5)):
        assert len(loader.requests) == 1
        for number, request in enumerate(forged):
            assert refusal(subject, request) is Reason.TOKEN_KEY_UNKNOWN
            if not number % 100:
                await asyncio.sleep(0)
        assert len(loader.requests) == 1  # not within the interval
        await until(lambda: len(loader.requests) == 2)
        await asyncio.sleep(0.1)
        assert len(loader.requests) == 2  # and once for all of them


async def test_a_new_key_is_fetched_for_the_first_token_that_names_it() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=Timing(unknown_kid=0)):
        loader.publish(NEW)
        assert refusal(subject, bearer(NEW.token())) is Reason.TOKEN_KEY_UNKNOWN
        await until(lambda: accepts(subject, NEW))
        assert len(loader.requests) == 2


async def test_an_unknown_key_reported_from_another_thread_counts_too() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=Timing(unknown_kid=0)):
        await asyncio.to_thread(refusal, subject, bearer(NEW.token()))
        await until(lambda: len(loader.requests) == 2)


async def test_tokens_that_fail_otherwise_cause_no_fetch() -> None:
    loader, subject = FakeLoader(OLD), fetching()
    async with refreshing(loader, subject, timing=Timing(unknown_kid=0)):
        forged = Signer(kid="old", number=9)
        assert refusal(subject, bearer(forged.token())) is Reason.TOKEN_SIGNATURE
        assert refusal(subject, bearer(OLD.token(exp=1))) is Reason.TOKEN_EXPIRED
        assert refusal(subject, bearer(OLD.token(iss="other"))) is Reason.TOKEN_ISSUER_UNKNOWN
        await asyncio.sleep(0.05)
        assert len(loader.requests) == 1


async def test_a_new_snapshot_gets_the_keys_at_once_without_a_fetch() -> None:
    loader, first, second = FakeLoader(OLD), fetching(), fetching()
    async with refreshing(loader, first) as refresher:
        refresher.bind(second.key_slots)
        assert accepts(second, OLD)
        assert len(loader.requests) == 1
        assert refresher.age_of(second.key_slots[0]) == refresher.age_of(first.key_slots[0])


async def test_sources_without_rules_are_no_longer_fetched_and_new_ones_are() -> None:
    loader, first = FakeLoader(OLD), fetching()
    loader.texts["https://other.example/k"] = jwks([NEW])
    async with refreshing(loader, first, timing=OFTEN) as refresher:
        second = fetching("https://other.example/k")
        refresher.bind(second.key_slots)
        await until(lambda: accepts(second, NEW))
        before = [url for url, _ in loader.requests].count(URL)
        await until(lambda: len(loader.requests) > before + 4)
        assert [url for url, _ in loader.requests].count(URL) == before
        first.key_slots[0].key_unknown()  # a request that is still decided by the old rules


async def test_an_issuer_that_hangs_does_not_delay_the_others() -> None:
    class OneHangs(FakeLoader):
        async def load(self, source: KeySource, timeout_seconds: float) -> FetchedKeys:
            if source.address != URL:
                await asyncio.Event().wait()
            return await super().load(source, timeout_seconds)

    hung = [fetching(f"https://{number}.example/k") for number in range(MAX_FETCHES - 1)]
    subject = fetching()
    async with refreshing(OneHangs(OLD), *hung, subject, patience=0.05):
        assert accepts(subject, OLD)


async def test_a_bug_is_logged_and_counts_as_a_failed_fetch(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str, FetchOutcome]] = []
    loader, subject = FakeLoader(), fetching()
    loader.error = RuntimeError("a bug")
    async with refreshing(loader, subject, timing=OFTEN, on_fetch=lambda host, outcome: heard.append((host, outcome))):
        loader.publish(OLD)
        await until(lambda: accepts(subject, OLD))
    assert heard[0] == ("keys.example", FetchOutcome.FAILED)
    assert heard[-1] == ("keys.example", FetchOutcome.TAKEN)
    assert "a bug" in caplog.text


async def test_failures_are_logged_with_details_and_only_the_host_of_the_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = "https://keys.example/k?secret=hush"
    loader, subject = FakeLoader(), fetching(url)
    with caplog.at_level(logging.INFO):
        async with refreshing(loader, subject):
            pass
    failure = next(record for record in caplog.records if record.message == "keys can't be fetched")
    fields = vars(failure)
    assert (fields["host"], fields["issuers"], fields["outcome"]) == ("keys.example", [ISSUER], "unreachable")
    assert (fields["failures"], fields["keys_hold_for_seconds"]) == (1, None)
    assert not any("hush" in str(vars(record)) for record in caplog.records)


async def test_age_and_expiry_of_keys_are_reported_in_wall_clock_time() -> None:
    loader, subject = FakeLoader(OLD, max_age=100), fetching()
    async with refreshing(loader, subject) as refresher:
        age = refresher.age_of(subject.key_slots[0])
        assert age is not None
        assert age.since == WALL
        assert age.until == pytest.approx(WALL + 100 + 3600, abs=1)
        assert refresher.ages() == {"keys.example": 0.0}


async def test_an_issuer_that_can_not_be_discovered_is_denied_and_named() -> None:
    loader, subject = FakeLoader(), fetching(None, issuer="accounts.example")
    async with refreshing(loader, subject) as refresher:
        assert loader.requests[0][0] == "accounts.example"
        assert refresher.missing_issuers() == ("accounts.example",)
