"""Creates the demo's certificates, keys and tokens in one directory (mode 0700, files 0600), which is never committed.

Run it alone with `python envoy/demo/identities.py DIRECTORY`. Private keys of authorities and issuers are not written.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

if __package__ in (None, ""):  # run as a file: make the package importable
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from envoy.demo import facts
from envoy.demo.certificates import CertificateAuthority, Issued, Names
from envoy.demo.tokens import AUDIENCE, ISSUER, Issuer, demo_tokens

TRUST_DOMAIN = "cluster.local"
AUTHZ_ID = f"spiffe://{TRUST_DOMAIN}/ns/zta-system/sa/zta-authz"
POLICIES = Path(__file__).resolve().parent / "policies"


def spiffe_id(account: str) -> str:
    """Return the SPIFFE ID of a service account in the default namespace, in Istio's format."""
    return f"spiffe://{TRUST_DOMAIN}/ns/default/sa/{account}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the generated files below one directory."""

    root: Path

    @property
    def ca(self) -> Path:
        """The certificate of the demo's authority, which signs the server and the valid clients."""
        return self.root / "tls" / "ca.pem"

    @property
    def policies(self) -> Path:
        """The directory of the policies."""
        return self.root / "policies"

    @property
    def facts(self) -> Path:
        """The directory of the device inventory and the country database."""
        return self.root / "facts"

    def certificate(self, name: str) -> Path:
        """Return the path of an identity's certificate."""
        return self.root / "tls" / f"{name}.pem"

    def key(self, name: str) -> Path:
        """Return the path of an identity's private key."""
        return self.root / "tls" / f"{name}.key"

    def token(self, name: str) -> Path:
        """Return the path of a token, which has no newline at its end."""
        return self.root / "tokens" / name


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read. Existing files are an error; links are not followed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def certificates(ca: CertificateAuthority) -> dict[str, Issued]:
    """Issue all certificates of the demo, by name. `ca` signs all except `frontend-other-ca`."""
    other_ca = CertificateAuthority("Somebody else's CA", TRUST_DOMAIN)
    names = ("frontend", "orders", "payments", "attacker", *facts.PEERS)
    issued = {name: ca.issue(Names(uris=(spiffe_id(name),))) for name in names}
    issued["server"] = ca.issue(
        Names(uris=(spiffe_id("hatshop"),), dns=("localhost",), ips=("127.0.0.1",), common_name="localhost")
    )
    issued["zta-authz"] = ca.issue(Names(uris=(AUTHZ_ID,), dns=("localhost",)))
    issued["frontend-expired"] = ca.issue(Names(uris=(spiffe_id("frontend"),)), expired=True)
    issued["frontend-other-ca"] = other_ca.issue(Names(uris=(spiffe_id("frontend"),)))
    return issued


def trust_bundle(ca: CertificateAuthority) -> dict[str, object]:
    """Return the TrustBundle with `ca` as the authority of the demo's trust domain."""
    return {
        "apiVersion": "zta.dev/v1",
        "kind": "TrustBundle",
        "metadata": {"name": "cluster-local", "namespace": "istio-system"},
        "spec": {"trustDomain": TRUST_DOMAIN, "x509Authorities": ca.certificate.decode()},
    }


def request_authentication(issuer: Issuer, namespace: str, app: str) -> dict[str, object]:
    """Return the RequestAuthentication that accepts tokens of `issuer` for the workload `app` only."""
    rule = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": json.dumps(issuer.jwks())}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": f"{app}-login", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": app}}, "jwtRules": [rule]},
    }


def mint(root: Path, ca: CertificateAuthority | None = None) -> Layout:
    """Create everything in `root`, which is new or empty. Creates an authority without `ca`."""
    layout = Layout(root)
    for directory in (root, root / "tls", root / "tokens", layout.policies, layout.facts):
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
    documents = {
        "trust-bundle": trust_bundle(ca),
        "hatshop-login": request_authentication(issuer, "default", "hatshop"),
        "zta-admin-login": request_authentication(issuer, "istio-system", "zta-admin"),
    }
    for name, document in documents.items():
        write_private(layout.policies / f"{name}.yaml", yaml.safe_dump(document, sort_keys=False).encode())
    facts.write(layout.facts, spiffe_id)
    for source in sorted(POLICIES.glob("*.yaml")):
        shutil.copyfile(source, layout.policies / source.name)
    return layout


def main(arguments: list[str]) -> int:
    """Create the files in the directory that is given on the command line."""
    if len(arguments) != 1:
        sys.stderr.write("usage: identities.py DIRECTORY\n")
        return 2
    mint(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
