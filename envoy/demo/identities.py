"""Mints everything secret that the demo needs into one directory: 0700, files 0600, never committed.

`python envoy/demo/identities.py DIRECTORY` does it by hand. No authority's and no issuer's private key is written.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

if __package__ in (None, ""):  # run as a file: let the package above be found
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from envoy.demo.certificates import CertificateAuthority, Issued, Names
from envoy.demo.tokens import AUDIENCE, ISSUER, Issuer, demo_tokens

TRUST_DOMAIN = "cluster.local"
AUTHZ_ID = f"spiffe://{TRUST_DOMAIN}/ns/zta-system/sa/zta-authz"
POLICIES = Path(__file__).resolve().parent / "policies"


def spiffe_id(account: str) -> str:
    """The SPIFFE ID of a service account in the default namespace, as Istio writes it."""
    return f"spiffe://{TRUST_DOMAIN}/ns/default/sa/{account}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie below one directory."""

    root: Path

    @property
    def ca(self) -> Path:
        """The demo's authority, which signed the server and the honest clients."""
        return self.root / "tls" / "ca.pem"

    @property
    def policies(self) -> Path:
        """The documents zta-authz reads."""
        return self.root / "policies"

    def certificate(self, name: str) -> Path:
        """The certificate of one identity."""
        return self.root / "tls" / f"{name}.pem"

    def key(self, name: str) -> Path:
        """The private key of one identity."""
        return self.root / "tls" / f"{name}.key"

    def token(self, name: str) -> Path:
        """A token, without a newline at its end."""
        return self.root / "tokens" / name


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read; an existing one is an error, links are not followed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def certificates(ca: CertificateAuthority) -> dict[str, Issued]:
    """Every certificate of the story by its name; `ca` signs all but `frontend-other-ca`."""
    other_ca = CertificateAuthority("Somebody else's CA", TRUST_DOMAIN)
    issued = {name: ca.issue(Names(uris=(spiffe_id(name),))) for name in ("frontend", "orders", "payments", "attacker")}
    issued["server"] = ca.issue(
        Names(uris=(spiffe_id("hatshop"),), dns=("localhost",), ips=("127.0.0.1",), common_name="localhost")
    )
    issued["zta-authz"] = ca.issue(Names(uris=(AUTHZ_ID,), dns=("localhost",)))
    issued["frontend-expired"] = ca.issue(Names(uris=(spiffe_id("frontend"),)), expired=True)
    issued["frontend-other-ca"] = other_ca.issue(Names(uris=(spiffe_id("frontend"),)))
    return issued


def trust_bundle(ca: CertificateAuthority) -> dict[str, object]:
    """The document that makes `ca` the authority of the demo's trust domain."""
    return {
        "apiVersion": "zta.dev/v1",
        "kind": "TrustBundle",
        "metadata": {"name": "cluster-local", "namespace": "istio-system"},
        "spec": {"trustDomain": TRUST_DOMAIN, "x509Authorities": ca.certificate.decode()},
    }


def request_authentication(issuer: Issuer) -> dict[str, object]:
    """The document that makes `issuer` the one whose tokens count, for this shop only."""
    rule = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": json.dumps(issuer.jwks())}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "hatshop-login", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "hatshop"}}, "jwtRules": [rule]},
    }


def mint(root: Path, ca: CertificateAuthority | None = None) -> Layout:
    """Fill `root`, new or empty, with certificates, tokens and policies; without `ca` an authority is made."""
    layout = Layout(root)
    for directory in (root, root / "tls", root / "tokens", layout.policies):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    ca = ca or CertificateAuthority("HatShop demo CA", TRUST_DOMAIN)
    write_private(layout.ca, ca.certificate)
    for name, issued in certificates(ca).items():
        write_private(layout.certificate(name), issued.certificate)
        write_private(layout.key(name), issued.key)
    issuer = Issuer()
    for name, token in demo_tokens(issuer).items():
        write_private(layout.token(name), token.encode())
    for name, document in (("trust-bundle", trust_bundle(ca)), ("hatshop-login", request_authentication(issuer))):
        write_private(layout.policies / f"{name}.yaml", yaml.safe_dump(document, sort_keys=False).encode())
    for source in sorted(POLICIES.glob("*.yaml")):
        shutil.copyfile(source, layout.policies / source.name)
    return layout


def main(arguments: list[str]) -> int:
    """Mint into the directory that is named on the command line."""
    if len(arguments) != 1:
        sys.stderr.write("usage: identities.py DIRECTORY\n")
        return 2
    mint(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
