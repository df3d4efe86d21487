"""The client of the administrator: addresses, files and answers that can't be used are faults with exit status 2."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.operations_api import DB, WORKLOAD, bearer, running
from tests.support.pki import NOW
from tests.unit.following.test_connection import ADMINISTRATOR, Pair
from zta_authz.administrator import http_listener
from zta_authz.cli.administrator_client import AdministratorClient, CallRefused, Credentials, login_of
from zta_authz.cli.main import main
from zta_authz.errors import FaultsError

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = Credentials()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://192.0.2.1:80", "in clear"),
        ("ftp://127.0.0.1", "not the address"),
        ("https://", "not the address"),
        ("https://[::1", "not the address"),
        ("https://user@example.com", "not the address"),
        ("https://127.0.0.1:1/path", "not the address"),
        ("127.0.0.1:9000", "not the address"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_fault(address: str, message: str) -> None:
    with pytest.raises(FaultsError, match=message):
        AdministratorClient(address, NOBODY)


@pytest.mark.parametrize("address", ["unix:/nonexistent/socket", "http://127.0.0.1:1", "https://127.0.0.1:1"])
def test_an_administrator_that_cannot_be_reached_is_a_fault(address: str) -> None:
    with pytest.raises(FaultsError, match="can't be reached"):
        AdministratorClient(address, NOBODY).call("GET", "/access/requests")


def test_certificates_that_cannot_be_read_are_a_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for files in (Credentials(ca="/nonexistent.pem"), Credentials(certificate=str(tmp_path / "bad.pem"))):
        with pytest.raises(FaultsError, match="TLS files"):
            AdministratorClient("https://127.0.0.1:1", files)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"HTTP/1.1 200 OK\r\n\r\n{", b"hello"]
)
def test_what_is_no_answer_of_an_administrator_is_a_fault(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        client = AdministratorClient(f"unix:{path}", NOBODY)
        with pytest.raises(FaultsError):
            client.call("GET", "/access/requests")
        client.close()
        thread.join()


async def test_a_client_may_take_its_time_between_two_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "IDLE_SECONDS", 0.05)
    async with running(tmp_path) as api:
        client = AdministratorClient(f"unix:{api.http}", NOBODY)
        for _ in range(2):
            assert "requests" in await asyncio.to_thread(client.call, "GET", "/access/requests")
            await asyncio.sleep(0.2)
        client.close()


@pytest.mark.parametrize(("server", "refused"), [(ADMINISTRATOR, ""), (f"{ADMINISTRATOR}2", "another SPIFFE ID"), ("", "certificate verify failed|CERTIFICATE_VERIFY_FAILED")])  # fmt: skip
async def test_the_administrator_is_known_by_its_spiffe_id_or_by_its_host(tmp_path: Path, server: str, refused: str) -> None:  # fmt: skip
    pair = Pair(tmp_path)
    pair.write(WORKLOAD, 3)
    ca, chain, key = (str(pair.directory / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    async with running(tmp_path, tls=pair.administrator.mutual_tls()) as api:
        client = AdministratorClient(f"https://127.0.0.1:{api.http_tcp[1]}", Credentials(ca, chain, key, server=server))
        call = asyncio.to_thread(client.call, "GET", "/access/requests")
        if refused:
            with pytest.raises(FaultsError, match=refused):
                await call
            assert not api.sink.records
        else:
            assert "requests" in await call
            assert api.sink.records[-1][1].identity.principal == WORKLOAD


async def test_a_refusal_has_the_reason_of_the_administrator(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        client = AdministratorClient(f"unix:{api.http}", Credentials(token="a.b.c"))
        with pytest.raises(CallRefused) as refused:
            await asyncio.to_thread(client.call, "GET", "/access/requests")
        client.close()
    assert (refused.value.status, refused.value.reason) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ('Bearer realm="zta-authz", error="invalid_token"', ""),
        ('Bearer error="insufficient_user_authentication", max_age="900"', "use the token of a login not longer than 900 s ago"),
        ('Bearer acr_values="gold silver", max_age="60"', "use the token of a login by gold or silver not longer than 60 s ago"),
        ('DPoP acr_values="gold"', "use the token of a login by gold"),
    ],
)  # fmt: skip
def test_a_challenge_says_which_login_is_needed(challenge: str, words: str) -> None:
    assert login_of(challenge) == words


async def test_a_login_that_is_too_old_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        old = bearer("olga", auth_time=int(NOW) - 3600).removeprefix("Bearer ")
        client = AdministratorClient(f"http://127.0.0.1:{api.http_tcp[1]}", Credentials(token=old))
        with pytest.raises(
            CallRefused, match=r"step_up_required .*; use the token of a login not longer than 900 s ago"
        ):
            await asyncio.to_thread(
                client.call, "POST", "/access/break-glass", {"entitlement": DB, "duration": 60, "reason": "INC-1"}
            )


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "can't be read"), (b"", "not a token"), (b"a\nb", "not a token"), (b"\xff", "not a token")],
)
def test_a_token_file_that_has_no_token_is_a_fault(
    tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert main(["access", "list", "--address", "unix:/nonexistent", "--token-file", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_without_an_address_it_is_that_of_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text('administrator: {operations: {http: ["unix:/nonexistent/operations"]}}\n')
    assert main(["access", "list", "--config", str(config)]) == 2
    assert "unix:/nonexistent/operations" in capsys.readouterr().err
    config.write_text("{}\n")
    assert main(["access", "list", "--config", str(config)]) == 2
    assert "administrator.operations.http" in capsys.readouterr().err
