"""The client against real sockets on loopback, with a fake resolver."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.support.issuer import HOST, IssuerServer, issuer_server, server_tls
from zta_authz.errors import SettingsErrors
from zta_authz.keys.addresses import PUBLIC_ONLY, AddressRules
from zta_authz.keys.http_client import MAX_ADDRESS, MAX_BYTES, HttpClient, HttpDocument, trusted_authorities
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ANYWHERE = AddressRules(allow_private=True)
LOOPBACK = "127.0.0.1"


class FakeNames:
    """A resolver that returns the next list of `turns` on each call, and repeats the last one."""

    def __init__(self, *turns: list[str]) -> None:
        self.turns = list(turns) or [[LOOPBACK]]
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]


@asynccontextmanager
async def client(rules: AddressRules = ANYWHERE, **more: Any) -> AsyncIterator[HttpClient]:
    made = HttpClient(rules, **({"allow_http": True} | more))
    try:
        yield made
    finally:
        await made.close()


async def failure(http: HttpClient, address: str) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        async with asyncio.timeout(10):
            await http.get(address)
    return caught.value


async def test_a_document_comes_with_its_lifetime() -> None:
    async with issuer_server() as server, client() as http:
        server.say("/k", "hello", Cache_Control="public, max-age=600", Age="100")
        assert await http.get(server.url("/k?x=1")) == HttpDocument(b"hello", 500)
        server.say("/k", "again")
        assert await http.get(server.url("/k")) == HttpDocument(b"again", None)


async def test_the_request_contains_nothing_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with issuer_server() as server, client() as http:
        server.say("/k", "hello", Set_Cookie="a=b")
        await http.get(server.url("/k"))
        await http.get(server.url("/k"))
    assert {name.lower() for name in server.headers} == {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "user-agent",
    }
    assert server.headers["Accept-Encoding"] == "identity"


async def test_plain_http_is_refused_unless_it_is_allowed() -> None:
    async with issuer_server() as server, client(allow_http=False) as http:
        assert (await failure(http, server.url("/k"))).outcome is FetchOutcome.REFUSED_URL
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    ["", "keys", "ftp://a.example/", "file:///etc/passwd", "https://", "https:///k", "https://me@a.example/",
     "https://me:secret@a.example/", "https://a.example:0/", "https://a.example:99999/", "https://127.1/", "https://[::1/",
     "https://0x7f000001/", "https://2130706433/", "unix:/run/x.sock", "https://a b/", "https://\u0661.1.1.1/"],
)  # fmt: skip
async def test_an_unacceptable_url_is_refused_without_a_connection(address: str) -> None:
    names = FakeNames()
    async with client(PUBLIC_ONLY, resolve=names) as http:
        assert (await failure(http, address)).outcome in {FetchOutcome.REFUSED_URL, FetchOutcome.REFUSED_ADDRESS}
    assert names.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_private_addresses_as_hosts_are_refused(host: str) -> None:
    async with client(PUBLIC_ONLY) as http:
        assert (await failure(http, f"http://{host}:9/k")).outcome is FetchOutcome.REFUSED_ADDRESS


async def test_a_name_that_resolves_to_a_private_address_is_refused_before_any_connection() -> None:
    async with issuer_server() as server:
        server.say("/k", "hello")
        async with client(PUBLIC_ONLY, resolve=FakeNames()) as http:
            assert (await failure(http, server.url("/k", HOST))).outcome is FetchOutcome.REFUSED_ADDRESS
        async with client(PUBLIC_ONLY) as http:
            assert (await failure(http, server.url("/k", "localhost"))).outcome is FetchOutcome.REFUSED_ADDRESS
    assert server.asked == []


async def test_only_a_listed_host_may_have_a_private_address() -> None:
    rules = AddressRules(private_hosts=frozenset((HOST,)))
    async with issuer_server() as server, client(rules, resolve=FakeNames()) as http:
        server.say("/k", "hello")
        assert (await http.get(server.url("/k", HOST))).body == b"hello"
        assert (await failure(http, server.url("/k", "other.test"))).outcome is FetchOutcome.REFUSED_ADDRESS


async def test_the_client_connects_to_the_address_that_it_checked() -> None:
    """The name would resolve to another address on a second look-up; the client looks it up only once."""
    names = FakeNames([LOOPBACK], ["192.0.2.1"])
    async with issuer_server() as server, client(resolve=names) as http:
        server.say("/k", "hello")
        assert (await http.get(server.url("/k", HOST))).body == b"hello"
    assert names.asked == [HOST]


async def test_of_several_addresses_only_permitted_ones_are_connected_to() -> None:
    names = FakeNames(["169.254.169.254", LOOPBACK, "224.0.0.1"])
    async with issuer_server() as server, client(resolve=names) as http:
        server.say("/k", "hello")
        assert (await http.get(server.url("/k", HOST))).body == b"hello"


async def test_long_urls_are_refused_unparsed() -> None:
    long = "/" + "k" * MAX_ADDRESS
    async with issuer_server() as server, client() as http:
        assert (await failure(http, server.url(long))).outcome is FetchOutcome.REFUSED_URL
        server.redirect("/k", long)
        refused = await failure(http, server.url("/k"))
    assert (refused.outcome, server.asked) == (FetchOutcome.REFUSED_REDIRECT, ["/k"])


async def test_redirects_within_the_host_are_followed_three_times() -> None:
    async with issuer_server() as server, client() as http:
        server.say("/3", "hello")
        for step, status in enumerate((301, 302, 307)):
            server.redirect(f"/{step}", f"/{step + 1}" if step else server.url("/1"), status)
        assert (await http.get(server.url("/0"))).body == b"hello"
        server.redirect("/3", "/4", 308)
        server.say("/4", "too far")
        assert (await failure(http, server.url("/0"))).outcome is FetchOutcome.REFUSED_REDIRECT


async def test_redirects_elsewhere_are_not_followed() -> None:
    async with issuer_server() as server, issuer_server() as other, client(resolve=FakeNames()) as http:
        other.say("/k", "stolen")
        for target in (
            other.url("/k"),
            server.url("/k", HOST),
            server.url("/k", "localhost"),
            f"https://127.0.0.1:{server.port}/k",
            f"//{HOST}/k",
            "http://[bad/",
            "",
            "file:///etc/passwd",
        ):
            server.redirect("/k", target)
            assert (await failure(http, server.url("/k"))).outcome is FetchOutcome.REFUSED_REDIRECT, target
    assert other.asked == []


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 404, 429, 500, 503])
async def test_any_status_but_200_is_a_failure(status: int) -> None:
    async with issuer_server() as server, client() as http:
        server.say("/k", b"", status)
        failed = await failure(http, server.url("/k"))
    assert (failed.outcome, str(status) in failed.detail) == (FetchOutcome.STATUS, True)


async def test_the_largest_response_is_accepted_and_one_byte_more_is_not() -> None:
    async with issuer_server() as server, client() as http:
        server.say("/k", b"x" * MAX_BYTES)
        assert len((await http.get(server.url("/k"))).body) == MAX_BYTES
        server.say("/k", b"x" * (MAX_BYTES + 1))
        assert (await failure(http, server.url("/k"))).outcome is FetchOutcome.TOO_LARGE


async def test_an_endless_response_is_cut_off_at_the_limit() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    async with issuer_server() as server, client() as http:
        server.answers["/k"] = endless
        assert (await failure(http, server.url("/k"))).outcome is FetchOutcome.TOO_LARGE
    assert sent < 64 * MAX_BYTES


async def test_a_compressed_response_is_refused() -> None:
    async with issuer_server() as server, client() as http:
        server.say("/k", gzip.compress(b"x" * 100_000_000, 1)[:100_000], Content_Encoding="gzip")
        assert (await failure(http, server.url("/k"))).outcome is FetchOutcome.WRONG_CONTENT


async def test_a_server_that_is_down_or_does_not_speak_http_is_unreachable() -> None:
    async def rubbish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xffSSH-2.0 secret\r\n\r\n")
        writer.close()

    async def silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with client() as http:
        for behaviour in (rubbish, silence):
            server = await asyncio.start_server(behaviour, LOOPBACK, 0)
            port = server.sockets[0].getsockname()[1]
            failed = await failure(http, f"http://{LOOPBACK}:{port}/k")
            assert failed.outcome is FetchOutcome.UNREACHABLE
            assert "secret" not in str(failed)
            server.close()
            await server.wait_closed()
        assert (await failure(http, f"http://{LOOPBACK}:{port}/k")).outcome is FetchOutcome.UNREACHABLE


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    async def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with client(resolve=unknown) as http:
        assert (await failure(http, "https://nowhere.test/k")).outcome is FetchOutcome.UNREACHABLE


async def fetch_over_tls(server: IssuerServer, ca: Path | None, host: str) -> FetchFailed | bytes:
    tls = trusted_authorities(None if ca is None else str(ca))
    async with client(tls=tls, resolve=FakeNames(), allow_http=False) as http:
        try:
            return (await http.get(server.url("/k", host))).body
        except FetchFailed as failed:
            return failed


async def test_the_servers_certificate_must_be_for_the_host_and_from_a_trusted_authority(tmp_path: Path) -> None:
    context, ca = server_tls(tmp_path)
    async with issuer_server(context) as server:
        server.say("/k", "hello")
        assert await fetch_over_tls(server, ca, HOST) == b"hello"
        for untrusted in (await fetch_over_tls(server, None, HOST), await fetch_over_tls(server, ca, "other.test")):
            assert isinstance(untrusted, FetchFailed)
            assert untrusted.outcome is FetchOutcome.TLS
            assert "does not verify" in untrusted.detail
    assert server.asked == ["/k"]


async def test_https_to_a_server_without_tls_is_a_tls_failure() -> None:
    async with issuer_server() as server, client() as http:
        failed = await failure(http, f"https://{LOOPBACK}:{server.port}/k")
    assert failed.outcome is FetchOutcome.TLS


def test_tls_can_not_be_turned_off() -> None:
    context = trusted_authorities(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, "", "not PEM"])
def test_a_file_of_authorities_that_can_not_be_read_is_a_fault(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsErrors) as caught:
        trusted_authorities(str(file))
    assert [(fault.source, bool(fault.hint)) for fault in caught.value.faults] == [(str(file), True)]
