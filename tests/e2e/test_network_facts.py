"""Facts from databases, lists and an inventory, through the real Envoy: they decide, and damage to their files does not."""

from __future__ import annotations

import json
import random
import re
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from envoy.demo.client import Request
from envoy.demo.stack import Stack, StackOptions, running
from tests.soak.load import Load, Question, under
from tests.support.mmdb import write_mmdb

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLICIES = """apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: networks, namespace: default}
spec:
  rules:
  - {to: [{operation: {paths: [/country]}}], require: {network: {countries: [DE]}}}
  - {to: [{operation: {paths: [/not-country]}}], require: {network: {notCountries: [KP]}}}
  - {to: [{operation: {paths: [/asn]}}], require: {network: {asns: [64500]}}}
  - {to: [{operation: {paths: [/named]}}], require: {network: {anonymous: false}}}
  - {to: [{operation: {paths: [/reputed]}}], require: {network: {reputationAtLeast: 50}}}
  - {to: [{operation: {paths: [/office]}}], require: {network: {corporate: true}}}
  - {to: [{operation: {paths: [/device]}}], require: {device: {managed: true}}}
  - {to: [{operation: {paths: [/guarded]}}]}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: no-anonymous, namespace: default}
spec:
  action: DENY
  rules:
  - {to: [{operation: {paths: [/guarded]}}], when: [{key: zta.remote.anonymous, values: ["true"]}]}
---
apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {name: fleet, namespace: default}
spec:
  source: {file: devices.jsonl}
  id: spiffe
  identify: {certificate: spiffeId}
  fields: {managed: managed}
  times: {posture: at}
"""
GOOD, BAD, MOVED, OFFICE, UNLISTED = "193.99.144.80", "175.45.176.9", "89.160.20.112", "10.1.2.3", "9.9.9.9"
V6, V6_BAD = "2a02:2e0:3fe:1001:302::", "2a00:1450:4001::1"
NETWORKS = {
    "country.mmdb": {
        f"{GOOD}/24": {"country": {"iso_code": "DE"}},
        f"{BAD}/24": {"country": {"iso_code": "KP"}},
        f"{MOVED}/24": {"country": {"iso_code": "SE"}},
        f"{V6}/64": {"country": {"iso_code": "DE"}},
        f"{V6_BAD}/64": {"country": {"iso_code": "KP"}},
    },
    "asn.mmdb": {
        f"{GOOD}/24": {"autonomous_system_number": 64500},
        f"{BAD}/24": {"autonomous_system_number": 64501},
    },
    "anonymous.mmdb": {f"{BAD}/24": {"is_anonymous": True, "is_tor_exit_node": True}},
}
REPUTATION = f"# bad\n{BAD}\n203.0.113.0/24\n"
VERDICTS = {
    "/country": {GOOD: 200, V6: 200, BAD: 403, V6_BAD: 403, OFFICE: 403, UNLISTED: 403},
    "/not-country": {GOOD: 200, MOVED: 200, BAD: 403, OFFICE: 403, UNLISTED: 403},
    "/asn": {GOOD: 200, BAD: 403, UNLISTED: 403},
    "/named": {GOOD: 200, V6: 200, BAD: 403, OFFICE: 403},
    "/reputed": {GOOD: 200, UNLISTED: 200, BAD: 403, OFFICE: 403},
    "/office": {OFFICE: 200, GOOD: 403, BAD: 403},
    "/guarded": {GOOD: 200, BAD: 403, OFFICE: 403},
}
DEVICES = {"frontend": 200, "orders": 403, "payments": 403}


def inventory() -> str:
    """The frontend's device is managed, that of orders is not, and that of payments has not reported for days."""
    now = time.time()
    states = (("frontend", True, now), ("orders", False, now), ("payments", True, now - 3 * 86400))
    name = "spiffe://cluster.local/ns/default/sa/{}"
    records = [{"spiffe": name.format(who), "managed": managed, "at": at} for who, managed, at in states]
    return "".join(json.dumps(record) + "\n" for record in records)


def write_good(folder: Path, name: str) -> None:
    """Replace a file by its good version, by a rename."""
    fresh = folder / f".{name}.new"
    if name.endswith(".mmdb"):
        write_mmdb(fresh, NETWORKS[name])
    else:
        fresh.write_text(REPUTATION if name == "bad.txt" else inventory())
    if (folder / name).is_dir():
        (folder / name).rmdir()
    fresh.rename(folder / name)


class NetworkStack(Stack):
    """The demo's stack with rules about networks and devices, and fast polling."""

    def start_authz(self, cleanup: contextlib.ExitStack) -> None:
        for file in self.layout.policies.glob("*.yaml"):
            if file.name != "trust-bundle.yaml":
                file.unlink()
        (self.layout.policies / "networks.yaml").write_text(POLICIES)
        for name in (*NETWORKS, "bad.txt", "devices.jsonl"):
            write_good(self.layout.facts, name)
        paths = {name: str(self.layout.facts / f"{name}.mmdb") for name in ("country", "asn", "anonymous")}
        reputation = [{"file": str(self.layout.facts / "bad.txt"), "score": 10}]
        settings = {
            "networks": {**paths, "reputation": reputation, "corporate": ["10.0.0.0/8"]},
            "reload": {"poll_seconds": 0.1},
            "health": {"listen": "127.0.0.1:0"},
            "server": "fast",
        }
        self.options = replace(self.options, settings={**self.options.settings, **settings})
        super().start_authz(cleanup)

    def loads(self, result: str) -> int:
        """How many loads of changed data had this result."""
        log = (self.layout.root / "zta-authz.log").read_text().splitlines()
        [address] = {json.loads(line)["health"] for line in log if '"message": "serving"' in line}
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            found = re.search(rf'zta_network_data_loads_total{{result="{result}"}} (\d+)', page.read().decode())
        return int(found[1]) if found else 0

    def wait_for_load(self, result: str, before: int) -> None:
        """Wait until one more load had this result."""
        deadline = time.monotonic() + 20
        while self.loads(result) <= before:
            self.authz.check()
            assert time.monotonic() < deadline, f"no load was {result}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkStack]:
    options = StackOptions(envoy=envoy_binary)
    with running(tmp_path_factory.mktemp("stack"), options, kind=NetworkStack) as started:
        assert isinstance(started, NetworkStack)
        yield started


def asked(path: str, forwarded: str, peer: str = "frontend") -> Question:
    """The load balancer's request for a client at an address."""
    return Question(f"{path} {forwarded} {peer}", peer, Request(path=path, headers=(("x-forwarded-for", forwarded),)))


EXPECTED: dict[str, int] = {}
QUESTIONS: list[Question] = []
for _path, _statuses in VERDICTS.items():
    for _address, _status in _statuses.items():
        QUESTIONS.append(asked(_path, _address))
        EXPECTED[QUESTIONS[-1].name] = _status
for _peer, _status in DEVICES.items():
    QUESTIONS.append(asked("/device", GOOD, _peer))
    EXPECTED[QUESTIONS[-1].name] = _status


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_each_fact_decides(stack: NetworkStack, question: Question) -> None:
    assert stack.send(question.peer, question.request).status == EXPECTED[question.name]


@pytest.mark.parametrize(
    ("forwarded", "country"),
    [
        (f"::ffff:{GOOD}", 200),
        (f"::ffff:{BAD}", 403),
        ("::ffff:af2d:b009", 403),  # BAD in hexadecimal
        (f"[::ffff:{BAD}]", 403),
        (f"{GOOD}, {BAD}", 403),
        (f"{BAD}, {GOOD}", 200),  # the last entry is what the load balancer wrote
        (f"{GOOD},", 403),
        (f"{GOOD} {BAD}", 403),
        ("unknown", 403),
        ("DE", 403),
        (f"{GOOD}.", 403),
        ("0301.0x63.36944", 403),
    ],
)
def test_only_the_entry_of_the_load_balancer_names_the_country(
    stack: NetworkStack, forwarded: str, country: int
) -> None:
    assert stack.send("frontend", asked("/country", forwarded).request).status == country
    if country == 403:
        assert stack.send("frontend", asked("/not-country", forwarded).request).status == 403


def test_no_header_of_the_client_is_a_fact(stack: NetworkStack) -> None:
    names = ("x-real-ip", "true-client-ip", "cf-connecting-ip", "cf-ipcountry", "x-envoy-external-address", "forwarded")
    forged = tuple((name, value) for name in names for value in (GOOD, "DE", f"for={GOOD}"))
    headers = (("x-forwarded-for", BAD), *forged, ("x-zta-country", "DE"), ("x-device-id", "frontend"))
    for path in ("/country", "/not-country", "/asn", "/named", "/reputed", "/guarded"):
        assert stack.send("frontend", Request(path=path, headers=headers)).status == 403
    assert stack.send("orders", Request(path="/device", headers=headers)).status == 403


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(len(path.read_bytes())))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 7)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def web_page(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    path.write_text("<html>\n<title>503 Service Unavailable</title>\n</html>\n")


def no_metadata(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xab\xcd\xefMaxMind.com", b"\xab\xcd\xefMaxMind_com"))


DAMAGE: dict[str, tuple[Callable[[Path], None], ...]] = {
    "country.mmdb": (no_metadata, cut, garbage, empty, remove, directory, web_page),
    "anonymous.mmdb": (garbage, empty),
    "bad.txt": (empty, garbage, remove, directory, web_page),
    "devices.jsonl": (garbage, remove, directory, web_page),
}


def test_damaged_files_leave_the_last_good_data_in_force(stack: NetworkStack) -> None:
    """Each kind of damage is written in place under load. The metric counts it, and every verdict stays as it was."""
    ask = random.Random(2)
    pid = stack.authz.pid
    with under(Load(stack, lambda: ask.choice(QUESTIONS))) as load:
        for name, kinds in DAMAGE.items():
            for damage in kinds:
                refused = stack.loads("refused")
                damage(stack.layout.facts / name)
                stack.wait_for_load("refused", refused)
            taken = stack.loads("taken")
            write_good(stack.layout.facts, name)
            stack.wait_for_load("taken", taken)
    wrong = [answer for answer in load.answered if answer.status != EXPECTED[answer.name]]
    assert wrong == []
    assert load.broken == []
    assert {answer.name for answer in load.answered} == set(EXPECTED)
    assert stack.authz.pid == pid
    assert "Traceback" not in (stack.layout.root / "zta-authz.log").read_text()


def rename_over(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.rename(path)


def overwrite(path: Path, content: bytes) -> None:
    """Write over the file in place, in small pieces, as a slow copy does."""
    with path.open("r+b") as file:
        for start in range(0, len(content), 256):
            file.write(content[start : start + 256])
            file.flush()
            time.sleep(0.01)
        file.truncate()


def truncate_and_write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("swap", [rename_over, overwrite, truncate_and_write])
def test_databases_swapped_while_serving_give_only_verdicts_of_the_old_or_the_new(
    stack: NetworkStack, tmp_path: Path, swap: Callable[[Path, bytes], None]
) -> None:
    ask = random.Random(3)
    moved = asked("/country", MOVED)
    path = stack.layout.facts / "country.mmdb"
    with under(Load(stack, lambda: ask.choice([*QUESTIONS, moved]))) as load:
        for code, status in (("DE", 200), ("SE", 403), ("DE", 200), ("KP", 403)):
            records: dict[str, dict[str, Any]] = {**NETWORKS["country.mmdb"], f"{MOVED}/24": {"country": code}}
            content = write_mmdb(tmp_path / "new.mmdb", records).read_bytes()
            taken = stack.loads("taken")
            swap(path, content)
            stack.wait_for_load("taken", taken)
            for _ in range(10):
                assert stack.send("frontend", moved.request).status == status
    changing = {moved.name, asked("/not-country", MOVED).name}
    kept = [answer for answer in load.answered if answer.name not in changing]
    assert [answer for answer in kept if answer.status != EXPECTED[answer.name]] == []
    assert {answer.status for answer in load.answered} == {200, 403}
    taken = stack.loads("taken")
    write_good(stack.layout.facts, "country.mmdb")
    stack.wait_for_load("taken", taken)


def flip_bytes(content: bytes, rounds: random.Random) -> bytes:
    """A database whose metadata can be read, and whose tree or data are damaged in some places."""
    metadata = content.rindex(b"\xab\xcd\xefMaxMind.com")
    damaged = bytearray(content)
    for _ in range(rounds.choice((1, 8, 200))):
        damaged[rounds.randrange(metadata)] ^= 1 << rounds.randrange(8)
    return bytes(damaged)


def zero_tree(content: bytes, rounds: random.Random) -> bytes:
    """A database that was allocated but not written, but for its end."""
    metadata = content.rindex(b"\xab\xcd\xefMaxMind.com")
    start = rounds.choice((0, metadata // 2))
    return content[:start] + bytes(metadata - start) + content[metadata:]


@pytest.mark.parametrize("damage", [flip_bytes, zero_tree])
def test_a_damaged_database_that_can_still_be_opened_never_stops_the_service(
    stack: NetworkStack, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    """What it says may be anything that its bytes say, but each answer is a decision, and the other facts still count."""
    rounds, ask, pid = random.Random(4), random.Random(5), stack.authz.pid
    others = [each for each in QUESTIONS if each.request.path in ("/asn", "/named", "/reputed", "/office", "/device")]
    path = stack.layout.facts / "country.mmdb"
    good = path.read_bytes()
    with under(Load(stack, lambda: ask.choice(QUESTIONS))) as load:
        for _ in range(6):
            before = stack.loads("taken") + stack.loads("refused")
            rename_over(path, damage(good, rounds))
            deadline = time.monotonic() + 20
            while stack.loads("taken") + stack.loads("refused") <= before:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        taken = stack.loads("taken")
        write_good(stack.layout.facts, "country.mmdb")
        stack.wait_for_load("taken", taken)
    assert {answer.status for answer in load.answered} <= {200, 403}
    assert all(answer.decided for answer in load.answered)
    names = {each.name for each in others}
    assert [each for each in load.answered if each.name in names and each.status != EXPECTED[each.name]] == []
    assert stack.authz.pid == pid
    for question in QUESTIONS:
        assert stack.send(question.peer, question.request).status == EXPECTED[question.name]
