"""Poll delivery of SETs (RFC 8936): asks a transmitter for events, and acknowledges those that are durable.

A SET is acknowledged in the next request after its commit. If the administrator dies in between, the transmitter sends
it again. A SET that can't be taken in now is not acknowledged; one that is not valid is reported in `setErrs`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from zta_authz.administrator.signals.intake import NotNow
from zta_authz.administrator.signals.runtime import NoKeys
from zta_authz.administrator.signals.transmitter_client import Refused
from zta_authz.administrator.signals.transmitters import TransmitterError
from zta_authz.authn.encoding import json_object
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.security_events.set_verifier import MAX_SET_BYTES, SetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.administrator.signals.runtime import SourceRuntime
    from zta_authz.administrator.signals.transmitter_client import TransmitterClient

MAX_EVENTS: Final = 50
"""SETs that one answer may have. Fewer are asked for if an answer was too large."""
POLL_SECONDS: Final = 60.0
"""How long the transmitter may wait with its answer until there is an event."""
PAUSE_SECONDS: Final = 1.0
"""Pause after an answer without events, for transmitters that do not wait."""
RETRY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 60.0
_MAX_DOUBLINGS: Final = 6
_MAX_JTI: Final = 1024

_LOG = logging.getLogger(__name__)
_random = random.SystemRandom()


class Poller:
    """Polls for one source. `jitter` returns a number between its two arguments."""

    def __init__(
        self,
        runtime: SourceRuntime,
        client: TransmitterClient,
        endpoint: str,
        *,
        jitter: Callable[[float, float], float] = _random.uniform,
    ) -> None:
        self._runtime = runtime
        self._client = client
        self._endpoint = endpoint
        self._jitter = jitter
        self._acks: list[str] = []
        self._errors: dict[str, dict[str, str]] = {}
        self._max_events = MAX_EVENTS
        self._failures = 0

    async def run(self) -> None:
        """Poll until cancelled, or until the stream no longer exists (`TransmitterError`)."""
        while True:
            delay = await self.step()
            await asyncio.sleep(delay)

    async def step(self) -> float:
        """Poll once. Returns how many seconds to wait before the next time.

        Raises `TransmitterError` if the stream does not exist any more.
        """
        try:
            more = await self._poll()
        except Refused as error:
            if error.status in (404, 410):
                raise
            return self._failed(str(error), error.retry_after)
        except FetchFailed as error:
            if error.outcome is FetchOutcome.TOO_LARGE and self._max_events > 1:
                self._max_events = max(1, self._max_events // 2)
                return 0.0
            return self._failed(error.detail)
        except TimeoutError:  # the transmitter may wait for longer than we do
            self._runtime.failure = f"no answer in {POLL_SECONDS:.0f} s"
            return self._jitter(0.5, 1.0) * PAUSE_SECONDS
        except (TransmitterError, NotNow) as error:
            return self._failed(str(error))
        if self._failures:
            _LOG.info("signals are received again", extra={"source": self._runtime.source.full_name})
        self._failures = 0
        self._runtime.failure = ""
        return 0.0 if more else self._jitter(0.5, 1.0) * PAUSE_SECONDS

    def _failed(self, why: str, retry_after: float | None = None) -> float:
        """Record a failure. Returns the pause, which doubles each time."""
        self._runtime.failure = why
        if not self._failures:
            _LOG.warning("signals can't be received: %s", why, extra={"source": self._runtime.source.full_name})
        delay = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(self._failures, _MAX_DOUBLINGS))
        self._failures += 1
        asked = min(retry_after or 0.0, MAX_RETRY_SECONDS)
        return max(self._jitter(0.5, 1.0) * delay, asked)

    async def _poll(self) -> bool:
        """Send one request with all acknowledgements, and take in the SETs. Whether to ask again at once."""
        acks, errors = list(self._acks), dict(self._errors)
        request: dict[str, Any] = {"maxEvents": self._max_events, "returnImmediately": bool(acks or errors)}
        if acks:
            request["ack"] = acks
        if errors:
            request["setErrs"] = errors
        reply = await self._client.poll(self._endpoint, request, POLL_SECONDS)
        if reply.status not in (200, 202, 204):
            raise Refused("no events", reply)
        self._acks = self._acks[len(acks) :]
        self._errors = {jti: error for jti, error in self._errors.items() if jti not in errors}
        sets, more = _parse_sets(reply.body, self._max_events)
        without_keys: NoKeys | None = None
        for jti, text in sets.items():
            try:
                await self._take(jti, text)
            except NoKeys as error:  # the others may have keys that are known
                without_keys = error
        if without_keys is not None:
            raise without_keys
        return bool(sets) or more

    async def _take(self, jti: str, text: str) -> None:
        """Take in one SET. Raises `NotNow`, and it is not acknowledged."""
        try:
            await self._runtime.receive(text.encode("utf-8", "replace"))
        except SetError as error:
            self._errors[jti] = {"err": error.code, "description": error.description}
            _LOG.warning(
                "a security event is refused: %s", error.description,
                extra={"source": self._runtime.source.full_name, "error": str(error.code)},
            )  # fmt: skip
        else:
            self._acks.append(jti)


def _parse_sets(data: bytes, most: int) -> tuple[dict[str, str], bool]:
    """The SETs of an answer by their `jti`, and `moreAvailable`. Raises `TransmitterError`."""
    if not data.strip():
        return {}, False
    try:
        document = json_object(data)
    except ValueError:
        raise TransmitterError("the transmitter's answer is not a JSON object") from None
    sets = document.get("sets", {})
    if not isinstance(sets, dict):
        raise TransmitterError("`sets` is not an object")
    taken = {
        jti: text
        for jti, text in list(sets.items())[:most]
        if isinstance(text, str) and 0 < len(jti) <= _MAX_JTI and len(text) <= MAX_SET_BYTES
    }
    if len(taken) < min(len(sets), most):
        raise TransmitterError("`sets` has an entry that is not a SET of at most 64 KiB")
    return taken, document.get("moreAvailable") is True or len(sets) > most
