from __future__ import annotations

import pytest

from zta_authz.cli.envoy_config.network_address import check_path, parse_address, tcp, unix_socket, worker_sockets


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a b.sock", unix_socket("/run/a b.sock")),
        ("127.0.0.1:80", tcp("127.0.0.1", 80)),
        ("localhost:80", tcp("127.0.0.1", 80)),
        ("[::1]:80", tcp("::1", 80)),
        ("zta-authz.zta-system.svc:9191", tcp("zta-authz.zta-system.svc", 9191)),
        ("collector:4317", tcp("collector", 4317)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: object) -> None:
    assert parse_address(text, names=True) == address
    assert parse_address(str(address), names=True) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "app:",
        "app:0",
        "app:65536",
        "app:8o",
        "app:\u0661",
        "-app:80",
        "app-:80",
        "a..b:80",
        "app.:80",
        "a_b:80",
        "APP:80",
        "app\n:80",
        "app:80\n",
        "a b:80",
        "x" * 64 + ":80",
        ".".join(["x" * 60] * 5) + ":80",
        "10.0.0.300:80",
        "10.1:80",
        "::1:80",
        "[127.0.0.1]:80",
        "[::1%eth0]:80",
        "http://app:80",
        "user@app:80",
        "unix:",
        "unix:run/a.sock",
        "unix:/run/",
        "unix:/run/../etc/a.sock",
        "unix:/run/./a.sock",
        "unix:/run/a\n.sock",
        "unix:/run/a\0.sock",
        "unix:/run/a\u2028.sock",
        "unix:/run/\x1b[2J.sock",
        "unix:/run/\udcff.sock",
        "unix:/" + "x" * 107,
    ],
)
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_address(text, names=True)


def test_dns_names_are_accepted_only_if_envoy_can_resolve_them() -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        parse_address("app:80")


@pytest.mark.parametrize("path", ["", "tls", "/etc/tls/", "/etc/../tls", "/etc/\ttls"])
def test_a_path_that_could_mean_something_else_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_path(path)


def test_one_worker_has_the_plain_socket_and_several_have_numbered_ones() -> None:
    assert worker_sockets("/a", 1) == (unix_socket("/a"),)
    assert worker_sockets("/a", 3) == (unix_socket("/a.1"), unix_socket("/a.2"), unix_socket("/a.3"))


@pytest.mark.parametrize(
    ("one", "other", "conflicts_with"),
    [
        (unix_socket("/a"), unix_socket("/a"), True),
        (unix_socket("/a"), unix_socket("/b"), False),
        (unix_socket("/a"), tcp("127.0.0.1", 1), False),
        (tcp("0.0.0.0", 1), tcp("127.0.0.1", 1), True),
        (tcp("::", 1), tcp("fd00::1", 1), True),
        (tcp("::", 1), tcp("10.0.0.1", 1), False),
        (tcp("10.0.0.1", 1), tcp("10.0.0.1", 1), True),
        (tcp("10.0.0.1", 1), tcp("10.0.0.1", 2), False),
        (tcp("10.0.0.1", 1), tcp("10.0.0.2", 1), False),
        (tcp("0.0.0.0", 1), tcp("elsewhere.example", 1), False),
    ],
)
def test_addresses_conflict_if_both_can_not_be_listened_on(one: object, other: object, conflicts_with: bool) -> None:
    assert one.conflicts_with(other) is conflicts_with  # type: ignore[attr-defined]
    assert other.conflicts_with(one) is conflicts_with  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (unix_socket("/a"), True),
        (tcp("127.0.0.2", 1), True),
        (tcp("::1", 1), True),
        (tcp("0.0.0.0", 1), False),
        (tcp("10.0.0.1", 1), False),
        (tcp("localhost.example", 1), False),
    ],
)
def test_addresses_without_access_from_other_machines_are_local(address: object, local: bool) -> None:
    assert address.is_local is local  # type: ignore[attr-defined]
