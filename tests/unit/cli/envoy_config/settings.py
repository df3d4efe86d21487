"""Settings for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TLS = """
tls: {cert_file: a.pem, key_file: a.key, client_ca_file: ca.pem, allowed_spiffe_ids: ["spiffe://shop.example/envoy"]}
"""


def settings_file(tmp_path: Path, text: str) -> str:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return str(file)
