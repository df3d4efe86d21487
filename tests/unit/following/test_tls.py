"""Faults of the files for TLS to the administrator, each with its file, and identities from the Workload API."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.integration.test_tls import key_pem
from tests.support.pki import FRONTEND, NOW, Authority, pem, private_key, root
from zta_authz.authn.bundles import BundleSlot
from zta_authz.authn.chain import Authorities
from zta_authz.authn.own_svid import SvidSlot, read_own_svid
from zta_authz.following.tls import AdministratorTls, AgentIdentity, IdentityFiles, TlsProblem
from zta_authz.model.spiffe import TrustDomain

ADMINISTRATOR = "spiffe://cluster.local/ns/zta/sa/administrator"


@pytest.fixture
def authority() -> Authority:
    return root("ca")


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> IdentityFiles:
    (tmp_path / "cert.pem").write_text(pem(authority.issue(key=private_key("P-256", 1))))
    (tmp_path / "key.pem").write_bytes(key_pem(1))
    (tmp_path / "ca.pem").write_text(authority.pem)
    return IdentityFiles(*(str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem")))


def test_the_context_is_made_of_the_files_and_says_when_our_certificate_expires(files: IdentityFiles) -> None:
    context, end = AdministratorTls(files, (ADMINISTRATOR,)).context()
    assert (context.check_hostname, end) == (False, NOW + 3600)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cert.pem", b"no certificate", "our certificate can't be read"),
        ("ca.pem", b"no authority", "holds no readable PEM certificates"),
        ("ca.pem", b"\xff", "holds no readable PEM certificates"),
        ("key.pem", b"no key", "is not the key of our certificate"),
        ("key.pem", key_pem(2), "is not the key of our certificate"),
        ("key.pem", key_pem(1, b"secret"), "is not the key of our certificate"),
        ("ca.pem", b"x" * (1024 * 1024 + 1), "has more than"),
        ("ca.pem", None, "cannot be read"),
    ],
)
def test_a_fault_names_its_file(files: IdentityFiles, name: str, content: bytes | None, message: str) -> None:
    path = {"cert.pem": files.cert_file, "key.pem": files.key_file, "ca.pem": files.ca_file}[name]
    file = Path(path)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(TlsProblem, match=message) as caught:
        AdministratorTls(files, (ADMINISTRATOR,)).context()
    assert caught.value.source == path


def test_the_identity_of_the_workload_api_is_complete_with_an_svid_and_a_bundle(authority: Authority) -> None:
    svid, bundles = SvidSlot(), BundleSlot()
    tls = AdministratorTls(AgentIdentity(svid, bundles, "cluster.local"), (ADMINISTRATOR,))
    with pytest.raises(TlsProblem, match="no SVID yet"):
        tls.context()
    key = private_key("P-256", 1)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    svid.current = read_own_svid(FRONTEND, authority.issue(key=key).public_bytes(Encoding.DER), der)
    with pytest.raises(TlsProblem, match="no bundle of the trust domain"):
        tls.context()
    bundles.current = {"cluster.local": Authorities(TrustDomain("cluster.local"), (authority.certificate,))}  # type: ignore[assignment]  # a mapping
    assert tls.context()[1] == NOW + 3600
