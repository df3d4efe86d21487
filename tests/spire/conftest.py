from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.spire.real import NotToBeHad, install


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with SPIRE's programs."""
    given = os.environ.get("SPIRE_BIN")
    if given:
        return Path(given)
    if os.environ.get("SPIRE_TESTS") != "install":
        pytest.skip("installs SPIRE: run `make test-spire`")
    directory = tmp_path_factory.mktemp("bin")
    try:
        install(directory)
    except NotToBeHad as error:
        pytest.skip(str(error))
    return directory
