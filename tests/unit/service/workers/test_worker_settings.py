from __future__ import annotations

import socket

import pytest

from zta_authz.errors import SettingsErrors
from zta_authz.service.workers.worker_settings import SharedPorts, worker_settings
from zta_authz.settings import load_settings


def test_each_worker_has_its_own_sockets_and_files_and_no_health_listener() -> None:
    environ = {
        "ZTA_WORKERS": "2",
        "ZTA_LISTEN": "unix:/run/a.sock,127.0.0.1:0",
        "ZTA_ADMIN__LISTEN": "unix:/run/admin.sock",
        "ZTA_AUDIT__SINK": "file",
        "ZTA_AUDIT__PATH": "/log/decisions.jsonl",
    }
    mine = worker_settings(load_settings(None, environ), 2, {"127.0.0.1:0": "127.0.0.1:4711"})
    assert mine.listen == ("unix:/run/a.sock.2", "127.0.0.1:4711")
    assert mine.admin.listen == "unix:/run/admin.sock.2"
    assert mine.audit.path == "/log/decisions.worker2.jsonl"
    assert mine.health.listen is None


def test_workers_can_listen_on_a_held_port_and_another_service_can_not() -> None:
    first = SharedPorts(load_settings(None, {"ZTA_LISTEN": "127.0.0.1:0"}))
    address = first.addresses["127.0.0.1:0"]
    with socket.socket() as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        worker.listen()
        with pytest.raises(SettingsErrors):
            SharedPorts(load_settings(None, {"ZTA_LISTEN": address}))
    first.close()
    SharedPorts(load_settings(None, {"ZTA_LISTEN": address})).close()


def test_several_workers_need_shorter_socket_paths_and_an_admin_socket() -> None:
    path = "/run/" + "x" * 101
    load_settings(None, {"ZTA_LISTEN": f"unix:{path}"})
    with pytest.raises(SettingsErrors) as error:
        load_settings(None, {"ZTA_LISTEN": f"unix:{path}", "ZTA_WORKERS": "2"})
    assert "Unix socket's path has at most" in str(error.value)
    tcp = {"ZTA_ADMIN__LISTEN": "127.0.0.1:9193", "ZTA_WORKERS": "2"}
    with pytest.raises(SettingsErrors) as error:
        load_settings(None, tcp)
    assert "can't be distinguished" in str(error.value)
