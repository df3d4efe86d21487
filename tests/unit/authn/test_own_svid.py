"""The service's own SVID: which ones are accepted, and that nothing of the key appears in texts."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.fakes.workload_api import der, pkcs8
from tests.support.pki import HOUR, NOW, key_usage, private_key, root
from zta_authz.authn.own_svid import OwnSvid, read_own_svid

US = "spiffe://cluster.local/ns/zta/sa/authz"
KEY = private_key("P-256", 77)
ROOT = root()
IS_CA = x509.BasicConstraints(ca=True, path_length=None)


def read(spiffe_id: str = US, key: Any = KEY, chain: bytes | None = None, **changed: Any) -> OwnSvid:
    leaf = ROOT.issue(**({"uris": (US,), "key": KEY} | changed))
    return read_own_svid(spiffe_id, der(leaf) if chain is None else chain, pkcs8(key) if key else b"garbage")


def test_an_svid_comes_with_its_name_its_validity_its_chain_and_its_key() -> None:
    middle = ROOT.intermediate("middle")
    leaf = middle.issue(uris=(US,), key=KEY)
    svid = read(chain=der(leaf, middle.certificate))
    assert str(svid.spiffe_id) == US
    assert (svid.validity.not_before, svid.validity.not_after) == (NOW - HOUR, NOW + HOUR)
    assert svid.intermediates == (middle.certificate,)
    assert svid.chain_pem.count(b"BEGIN CERTIFICATE") == 2
    assert svid.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_the_key_is_in_no_repr() -> None:
    assert "PRIVATE" not in repr(read())
    assert "key" not in repr(read())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spiffe_id": US + "2"}, "another SPIFFE ID"),
        ({"uris": ()}, "0 URI SANs"),
        ({"uris": (US, US + "2")}, "2 URI SANs"),
        ({"uris": ("spiffe://Cluster.local/x",)}, "trust domain"),
        ({"basic": IS_CA, "usage": key_usage(key_cert_sign=True)}, "is a CA"),
        ({"purposes": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])}, "not for TLS servers"),
        ({"key": private_key("P-256", 78)}, "does not belong to the certificate"),
        ({"key": None}, "the private key can't be read"),
        ({"chain": b""}, "0 certificates, not 1 to 8"),
        ({"chain": b"\x30\x00"}, "a certificate can't be read"),
        ({"chain": b"garbage"}, "not a sequence"),
        ({"chain": der(*[ROOT.issue(uris=(US,), key=KEY)] * 50)}, "50 certificates"),
    ],
)
def test_an_unusable_svid_is_refused(changed: dict[str, Any], message: str) -> None:
    if "key" in changed:  # the certificate stays
        leaf = ROOT.issue(uris=(US,), key=KEY)
        changed = {**changed, "chain": der(leaf)}
    with pytest.raises(ValueError) as caught:
        read(**changed)
    assert message in str(caught.value)


def test_a_weak_key_is_refused() -> None:
    weak = private_key("RSA-1024", 1)
    with pytest.raises(ValueError, match="RSA key of 1024 bits"):
        read(key=weak, chain=der(ROOT.issue(uris=(US,), key=weak)))
