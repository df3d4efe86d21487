"""Calls a transmitter: reads its metadata, and creates, updates, reads, verifies and deletes a stream (SSF 1.0).

Every call is limited in time and size, and goes only to addresses that the settings permit. Credentials are a bearer
token from a file, which may be replaced at any time, or a token from the transmitter's token endpoint (RFC 6749 section
4.4), which is kept until shortly before it expires. They are sent to no address that a redirect names.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlencode

from zta_authz.administrator.signals.transmitters import (
    METHODS,
    TransmitterError,
    metadata_urls,
    parse_metadata,
    parse_stream,
    parse_streams,
    requested_events,
    stream_request,
)
from zta_authz.authn.encoding import json_object
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.model.signal_documents import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.administrator.signals.transmitters import Metadata, Stream
    from zta_authz.keys.http_client import HttpDocument, HttpReply
    from zta_authz.model.signal_documents import SignalSource

CALL_SECONDS: Final = 15.0
"""Time limit of one call, name look-up and connecting included."""
SCOPE: Final = "ssf.read ssf.manage"
MAX_TOKEN_CHARACTERS: Final = 16 * 1024
_EARLY_SECONDS: Final = 30.0
_DEFAULT_TOKEN_SECONDS: Final = 60.0
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"


class Client(Protocol):
    """Sends HTTP requests. `keys.http_client.HttpClient` implements it."""

    async def get(self, address: str) -> HttpDocument:
        """Fetch a document. Raises `FetchFailed`."""
        ...

    async def send(
        self, method: str, address: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> HttpReply:
        """Send a request. Raises `FetchFailed`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to authenticate to a transmitter. Without `token_file` and `client_id`, requests have no credentials."""

    token_file: str = ""
    client_id: str = ""
    client_secret_file: str = field(default="", repr=False)
    token_endpoint: str = ""
    scope: str = SCOPE


class Refused(TransmitterError):
    """The transmitter answered with an error. `retry_after` is in seconds, None if it did not say."""

    def __init__(self, what: str, reply: HttpReply) -> None:
        super().__init__(f"{what}: the transmitter answered {reply.status}")
        self.status = reply.status
        self.retry_after = reply.retry_after


class Authorizer:
    """Provides the Authorization header for a transmitter."""

    def __init__(self, credentials: Credentials, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials = credentials
        self._client = client
        self._clock = clock
        self._token = ""
        self._expires = 0.0

    async def headers(self) -> dict[str, str]:
        """The headers that authenticate a request. Raises `FetchFailed`, `TransmitterError`."""
        token = await self._current()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def forget(self) -> None:
        """Get another token for the next request, because this one was refused."""
        self._token = ""

    async def _current(self) -> str:
        given = self._credentials
        if given.token_file:
            return await asyncio.to_thread(read_secret, given.token_file)
        if not given.client_id:
            return ""
        if not self._token or self._clock() >= self._expires:
            self._token, seconds = await self._request(given)
            self._expires = self._clock() + seconds
        return self._token

    async def _request(self, given: Credentials) -> tuple[str, float]:
        """A new token, and for how many seconds to use it."""
        secret = await asyncio.to_thread(read_secret, given.client_secret_file)
        basic = base64.b64encode(f"{quote(given.client_id, safe='')}:{quote(secret, safe='')}".encode()).decode()
        body = urlencode({"grant_type": "client_credentials", "scope": given.scope}).encode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": _FORM, "Accept": _JSON}
        async with asyncio.timeout(CALL_SECONDS):
            reply = await self._client.send("POST", given.token_endpoint, headers=headers, body=body)
        if reply.status != 200:
            raise Refused("no token", reply)
        document = _parse(reply.body)
        token, seconds = document.get("access_token"), document.get("expires_in", _DEFAULT_TOKEN_SECONDS)
        if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_CHARACTERS or not _is_header_text(token):
            raise TransmitterError("the token endpoint's answer has no `access_token`")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            seconds = _DEFAULT_TOKEN_SECONDS
        return token, max(0.0, min(float(seconds), 86400.0) - _EARLY_SECONDS)


def read_secret(path: str) -> str:
    """Read a secret from a file, without the line's end. Raises `TransmitterError`, which does not quote it."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise TransmitterError(f"the file `{path}` can't be read as ASCII text") from None
    if not 0 < len(text) <= MAX_TOKEN_CHARACTERS or not _is_header_text(text):
        raise TransmitterError(f"the file `{path}` has no single line with a secret")
    return text


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable()


class TransmitterClient:
    """Calls one transmitter. Its methods raise `FetchFailed`, `TransmitterError` and TimeoutError."""

    def __init__(self, source: SignalSource, client: Client, authorizer: Authorizer) -> None:
        self._source = source
        self._client = client
        self._authorizer = authorizer

    async def metadata(self) -> Metadata:
        """Read the metadata from the first well-known address that has them."""
        failure: FetchFailed | None = None
        for url in metadata_urls(self._source):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    document = await self._client.get(url)
            except FetchFailed as error:
                failure = failure or error
                if error.outcome is not FetchOutcome.STATUS:
                    break
            else:
                return parse_metadata(document.body, self._source.issuer)
        raise failure or TransmitterError("no address for the metadata")

    async def ensure_stream(
        self, metadata: Metadata, known: str, push_url: str = "", authorization: str = ""
    ) -> Stream:
        """Return this source's stream with the events and the delivery of its document, creating or updating it.

        `known` is the ID of the stream that was created before, "" if there is none.
        """
        endpoint = metadata.configuration_endpoint
        if not endpoint:
            raise TransmitterError("the transmitter has no `configuration_endpoint`; name an existing stream")
        content = stream_request(self._source, push_url, authorization)
        stream = await self._read(endpoint, known) if known else None
        if stream is None:
            reply = await self._call("POST", endpoint, content)
            if reply.status == 201:
                return self._checked(parse_stream(reply.body, self._source.issuer))
            if reply.status != 409:
                raise Refused("no stream", reply)
            stream = await self._only(endpoint)
        if self._differs(stream, push_url):
            reply = await self._call("PATCH", endpoint, {"stream_id": stream.stream_id, **content})
            if reply.status not in (200, 202):
                raise Refused("the stream is not updated", reply)
            stream = parse_stream(reply.body, self._source.issuer)
        return self._checked(stream)

    async def verify(self, metadata: Metadata, stream: Stream, state: str) -> None:
        """Ask for a verification event with `state`. Raises `Refused` with status 429 if it is too soon."""
        reply = await self._call(
            "POST", metadata.verification_endpoint, {"stream_id": stream.stream_id, "state": state}
        )
        if reply.status not in (200, 202, 204):
            raise Refused("no verification", reply)

    async def delete(self, metadata: Metadata, stream_id: str) -> None:
        """Delete a stream. One that does not exist is no error."""
        reply = await self._call("DELETE", f"{metadata.configuration_endpoint}{_query(metadata, stream_id)}", None)
        if reply.status not in (200, 204, 404):
            raise Refused("the stream is not deleted", reply)

    async def poll(self, endpoint: str, request: Mapping[str, Any], seconds: float) -> HttpReply:
        """Send one poll request, which the transmitter may answer after a while."""
        return await self._call("POST", endpoint, request, seconds)

    async def _read(self, endpoint: str, stream_id: str) -> Stream | None:
        reply = await self._call("GET", f"{endpoint}{_with_id(endpoint, stream_id)}", None)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise Refused("no stream", reply)
        return parse_stream(reply.body, self._source.issuer)

    async def _only(self, endpoint: str) -> Stream:
        """The one stream of a transmitter that allows no other."""
        reply = await self._call("GET", endpoint, None)
        streams = parse_streams(reply.body, self._source.issuer) if reply.status == 200 else ()
        if len(streams) != 1:
            raise TransmitterError(f"the transmitter refuses a new stream, and {len(streams)} exist")
        return streams[0]

    def _differs(self, stream: Stream, push_url: str) -> bool:
        source = self._source
        if stream.method != METHODS[source.delivery] or stream.requested != requested_events(source):
            return True
        return source.delivery is Delivery.PUSH and stream.endpoint != push_url

    def _checked(self, stream: Stream) -> Stream:
        if stream.method != METHODS[self._source.delivery]:
            raise TransmitterError(f"the transmitter does not deliver by {self._source.delivery}")
        if self._source.delivery is Delivery.POLL and not stream.endpoint:
            raise TransmitterError("the stream has no `endpoint_url` to poll")
        return stream

    async def _call(
        self, method: str, url: str, content: Mapping[str, Any] | None, seconds: float = CALL_SECONDS
    ) -> HttpReply:
        headers = {"Accept": _JSON, **await self._authorizer.headers()}
        body = None
        if content is not None:
            headers["Content-Type"] = _JSON
            body = json.dumps(content).encode()
        async with asyncio.timeout(seconds):
            reply = await self._client.send(method, url, headers=headers, body=body)
        if reply.status == 401:
            self._authorizer.forget()
        return reply


def _with_id(endpoint: str, stream_id: str) -> str:
    return ("&" if "?" in endpoint else "?") + urlencode({"stream_id": stream_id})


def _query(metadata: Metadata, stream_id: str) -> str:
    return _with_id(metadata.configuration_endpoint, stream_id)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return json_object(data)
    except ValueError:
        raise TransmitterError("the answer is not a JSON object") from None
