from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ssf.keycloak import Keycloak, NotToBeHad, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    """A running Keycloak."""
    given = os.environ.get("KEYCLOAK_HOME")
    if given is None and os.environ.get("SSF_TESTS") != "fetch":
        pytest.skip("fetches Keycloak: run `make test-ssf`")
    directory = tmp_path_factory.mktemp("keycloak")
    try:
        home = Path(given) if given else fetch(directory)
        with Keycloak(home, directory, free_port(), free_port()) as running:
            yield running
    except NotToBeHad as error:
        pytest.skip(str(error))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
