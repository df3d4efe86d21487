"""Network facts: what databases, lists and ranges say of an address, and what becomes of bad or old files."""

from __future__ import annotations

import os
import time
from ipaddress import ip_address, ip_network
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.support.mmdb import write_mmdb
from zta_authz.errors import SettingsErrors
from zta_authz.facts import databases as module
from zta_authz.facts.databases import Database
from zta_authz.facts.networks import CLOCK_SKEW, GOOD_REPUTATION, ListSource, NetworkDatabases, NetworkSources
from zta_authz.model.facts import ABSENT, Unknown

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.model.facts import NetworkFacts

NOW = 1_800_000_000.0
GERMANY, TOR = "193.99.144.80", "185.220.101.1"


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> NetworkSources:
    folder = tmp_path_factory.mktemp("mmdb")
    country = {"193.99.0.0/16": {"country": {"iso_code": "DE"}}, "2a02::/16": {"country_code": "FR"}}
    country |= {"8.8.8.0/24": {"country": {"iso_code": "usa"}}, "9.9.9.0/24": {"country": "CH"}}
    asn = {"193.99.0.0/16": {"autonomous_system_number": 12306}, "8.8.8.0/24": {"asn": "AS15169"}}
    asn |= {"9.9.9.0/24": {"asn": True}}
    return NetworkSources(
        str(write_mmdb(folder / "country.mmdb", country, built_at=NOW - 3600)),
        str(write_mmdb(folder / "asn.mmdb", asn, built_at=NOW - 3600)),
        str(
            write_mmdb(folder / "anonymous.mmdb", {"185.220.101.0/24": {"is_tor_exit_node": True}}, built_at=NOW - 3600)
        ),
        corporate=(ip_network("193.99.144.0/25"), ip_network("10.0.0.0/8")),
        max_age=30 * 86400.0,
    )


def facts(sources: NetworkSources, address: str, now: float = NOW) -> NetworkFacts:
    return NetworkDatabases(sources).look_up(ip_address(address), now)


def only(sources: NetworkSources) -> NetworkSources:
    """The same without corporate ranges."""
    return NetworkSources(sources.country, sources.asn, sources.anonymous, max_age=sources.max_age)


def test_everything_that_is_known_of_an_address(databases: NetworkSources) -> None:
    found = facts(only(databases), GERMANY)
    assert (found.country.value, found.asn.value, found.anonymous.value) == ("DE", 12306, False)
    assert (found.country.observed_at, found.country.source) == (NOW - 3600, "networks.country")
    assert (found.reputation, found.corporate) == (ABSENT, ABSENT)
    assert facts(only(databases), TOR).anonymous.value is True
    assert facts(only(databases), "2a02::1").country.value == "FR"


@pytest.mark.parametrize(
    ("address", "country", "asn"), [("8.8.8.8", None, 15169), ("9.9.9.9", "CH", None), ("1.1.1.1", None, None)]
)
def test_what_is_no_country_or_number_is_absent(
    databases: NetworkSources, address: str, country: str | None, asn: int | None
) -> None:
    found = facts(only(databases), address)
    assert (found.country.value, found.asn.value) == (country, asn)


def test_nothing_but_being_corporate_is_looked_up_in_a_corporate_range(databases: NetworkSources) -> None:
    found = facts(databases, GERMANY)
    assert found.corporate.value is True
    assert (found.country, found.asn, found.anonymous) == (ABSENT, ABSENT, ABSENT)
    outside = facts(databases, "193.99.144.200")
    assert (outside.corporate.value, outside.country.value) == (False, "DE")


@pytest.mark.parametrize(
    "address", ["192.168.1.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "fd00::1", "::1", "fe80::1"]
)
def test_an_address_that_is_not_on_the_internet_has_no_country(databases: NetworkSources, address: str) -> None:
    found = facts(databases, address)
    assert (found.country, found.anonymous, found.corporate.value) == (ABSENT, ABSENT, False)


def test_data_that_are_too_old_are_stale_and_those_of_the_future_conflicting(databases: NetworkSources) -> None:
    assert facts(only(databases), GERMANY, NOW + 31 * 86400).country.unknown is Unknown.STALE
    assert facts(only(databases), GERMANY, NOW - 2 * 86400).country.unknown is Unknown.CONFLICTING
    assert facts(only(databases), TOR, NOW + 31 * 86400).anonymous.unknown is Unknown.STALE


def test_a_database_for_ipv4_knows_nothing_of_ipv6(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "4.mmdb", {"193.99.0.0/16": {"country": "DE"}}, ip_version=4)
    sources = NetworkSources(str(path))
    assert facts(sources, "2a02::1", time.time()).country.value is None
    assert facts(sources, GERMANY, time.time()).country.value == "DE"


def test_a_database_for_ipv4_does_not_call_ipv6_free_of_anonymity(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "4.mmdb", {"185.220.101.0/24": {"is_anonymous": True}}, ip_version=4)
    sources = NetworkSources(anonymous=str(path))
    assert facts(sources, "2a02::1", time.time()).anonymous.unknown is Unknown.ABSENT
    assert facts(sources, "8.8.8.8", time.time()).anonymous.value is False


def test_a_listed_address_without_a_flag_that_can_be_read_is_not_called_good(tmp_path: Path) -> None:
    records: dict[str, dict[str, object]] = {
        "8.8.8.0/24": {"vpn": "true"},
        "9.9.9.0/24": {"is_anonymous": "yes"},
        "1.1.1.0/24": {"is_anonymous": False},
    }
    sources = NetworkSources(anonymous=str(write_mmdb(tmp_path / "a.mmdb", records)))
    for address in ("8.8.8.8", "9.9.9.9"):
        assert facts(sources, address, time.time()).anonymous.unknown is Unknown.ABSENT
    assert facts(sources, "1.1.1.1", time.time()).anonymous.value is False


def test_a_damaged_record_is_not_called_good(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "a.mmdb", {"185.220.101.0/24": {"is_anonymous": True}})
    whole, record = path.read_bytes(), b"\xe1\x20\x00"  # a map of one pair, whose key is a pointer
    assert whole.count(record) == 1
    path.write_bytes(whole.replace(record, b"\xe1\x27\xff"))  # points behind the data
    assert facts(NetworkSources(anonymous=str(path)), TOR, time.time()).anonymous.unknown is Unknown.ABSENT


def reputation(tmp_path: Path, *lists: tuple[str, int, float], max_age: float = 3600.0) -> NetworkSources:
    """Lists of (text, score, age in seconds)."""
    sources = []
    for number, (text, score, age) in enumerate(lists):
        path = tmp_path / f"list{number}.txt"
        path.write_text(text)
        os.utime(path, (NOW - age, NOW - age))
        sources.append(ListSource(str(path), score, max_age))
    return NetworkSources(reputation=tuple(sources))


def test_the_worst_list_that_names_an_address_gives_its_reputation(tmp_path: Path) -> None:
    sources = reputation(tmp_path, ("8.8.8.0/24\n", 40, 60), ("8.8.8.8 # resolver\n;x\n\n2a02::/16", 10, 60))
    assert facts(sources, "8.8.8.8").reputation.value == 10
    assert facts(sources, "8.8.8.9").reputation.value == 40
    assert facts(sources, "2a02::5").reputation.value == 10
    assert facts(sources, "1.1.1.1").reputation.value == 100


def test_an_old_list_no_longer_calls_an_address_good(tmp_path: Path) -> None:
    sources = reputation(tmp_path, ("8.8.8.8", 10, 60), ("9.9.9.9", 20, 7200))
    assert facts(sources, "8.8.8.8").reputation.value == 10
    for address in ("9.9.9.9", "1.1.1.1"):
        assert facts(sources, address).reputation.unknown is Unknown.STALE


def test_an_old_list_that_could_give_less_makes_the_reputation_unknown(tmp_path: Path) -> None:
    worse = reputation(tmp_path, ("8.8.8.8", 40, 60), ("1.1.1.1", 10, 7200))
    assert facts(worse, "8.8.8.8").reputation.unknown is Unknown.STALE
    better = reputation(tmp_path, ("8.8.8.8", 10, 60), ("1.1.1.1", 40, 7200))
    assert facts(better, "8.8.8.8").reputation.value == 10


def test_an_ipv6_address_never_has_the_facts_of_an_ipv4_address_with_the_same_number() -> None:
    view = NetworkDatabases(NetworkSources(corporate=(ip_network("0.0.0.0/31"),)))
    for ipv4, ipv6 in (("0.0.0.0", "::"), ("0.0.0.1", "::1")):
        assert view.look_up(ip_address(ipv4), NOW).corporate.value is True
        assert view.look_up(ip_address(ipv6), NOW).corporate.value is False


def test_a_list_without_entries_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsErrors, match="has no entries"):
        NetworkDatabases(reputation(tmp_path, ("8.8.8.8", 50, 60), ("# all gone\n", 10, 60)))


def test_a_database_without_records_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsErrors, match=r"lists no network; download it again, or remove `networks\.anonymous`"):
        NetworkDatabases(NetworkSources(anonymous=str(write_mmdb(tmp_path / "a.mmdb", {}))))


def test_an_ipv4_mapped_address_is_looked_up_as_the_ipv4_address(databases: NetworkSources, tmp_path: Path) -> None:
    lists = reputation(tmp_path, ("8.8.8.8", 10, 60)).reputation
    sources = NetworkSources(databases.country, databases.asn, databases.anonymous, lists, databases.corporate)
    for address in (GERMANY, TOR, "10.1.1.1", "8.8.8.8"):
        assert facts(sources, f"::ffff:{address}") == facts(sources, address)


@pytest.mark.parametrize("prefix", ["::ffff:8.8.8.8", "::ffff:808:808", "0:0:0:0:0:ffff:0808:0808"])
def test_a_mapped_address_has_the_facts_of_its_ipv4_address_by_every_source(tmp_path: Path, prefix: str) -> None:
    record = {"8.8.8.0/24": {"country": "US", "asn": 15169, "is_anonymous": True}}
    path = str(write_mmdb(tmp_path / "all.mmdb", record, built_at=NOW - 3600))
    lists = reputation(tmp_path, ("8.8.8.8", 10, 60)).reputation
    found = facts(NetworkSources(path, path, path, lists), prefix)
    values = (found.country.value, found.asn.value, found.anonymous.value, found.reputation.value)
    assert values == ("US", 15169, True, 10)
    assert facts(NetworkSources(path, corporate=(ip_network("8.8.0.0/16"),)), prefix).corporate.value is True
    for listed in ("::ffff:8.8.8.0/120", "::ffff:808:808"):
        assert facts(reputation(tmp_path, (listed, 20, 60)), prefix).reputation.value == 20
    assert facts(NetworkSources(corporate=(ip_network("::ffff:8.8.0.0/112"),)), prefix).corporate.value is True


@pytest.mark.parametrize("embedding", ["2002:808:808::1", "64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8", "::8.8.8.8"])
def test_a_fact_is_conflicting_if_the_embedded_address_has_another(tmp_path: Path, embedding: str) -> None:
    listed = reputation(tmp_path, ("8.8.8.8", 10, 60))
    assert facts(listed, embedding).reputation.unknown is Unknown.CONFLICTING
    assert facts(reputation(tmp_path, ("9.9.9.9", 10, 60)), embedding).reputation.value == GOOD_REPUTATION
    both = reputation(tmp_path, (f"8.8.8.8\n{embedding}\n", 10, 60))
    assert facts(both, embedding).reputation.value == 10
    record = {"8.8.8.0/24": {"country": "US"}, "2002::/16": {"country": "DE"}, "64:ff9b::/32": {"country": "DE"}}
    database = NetworkSources(str(write_mmdb(tmp_path / "c.mmdb", record, built_at=NOW - 3600)))
    same = embedding == "::8.8.8.8"  # a database has IPv4 addresses there
    assert facts(database, embedding).country.value == ("US" if same else None)
    private = embedding.replace("808:808", "a01:101").replace("8.8.8.8", "10.1.1.1")
    assert facts(listed, private).reputation.value is None
    corporate = NetworkSources(corporate=(ip_network("8.8.0.0/16"),))
    assert facts(corporate, embedding).corporate.unknown is Unknown.CONFLICTING
    listed_itself = NetworkSources(corporate=(ip_network(embedding),))
    assert facts(listed_itself, embedding).corporate.value is True


@pytest.mark.parametrize("content", [b"", b"text", b"\xab\xcd\xefMaxMind.com", b"\x00" * 4096])
def test_a_file_that_is_no_database_is_a_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mmdb"
    path.write_bytes(content)
    with pytest.raises(SettingsErrors, match="is not a valid MaxMind database"):
        Database(str(path), "networks.country")


def test_a_cut_database_ends_in_a_fault_or_in_absent_facts(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "a.mmdb", {f"{n}.0.0.0/8": {"country": {"iso_code": "DE"}} for n in range(11, 60)})
    whole = path.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[size:])
        try:
            view = NetworkDatabases(NetworkSources(str(path)))
        except SettingsErrors:
            continue
        for address in ("11.1.1.1", "40.1.1.1", "8.8.8.8"):
            assert view.look_up(ip_address(address), time.time()).country.value in ("DE", None)


def test_overwriting_the_file_of_a_database_in_use_changes_nothing(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "a.mmdb", {"193.99.0.0/16": {"country": "DE"}})
    view = NetworkDatabases(NetworkSources(str(path)))
    path.write_bytes(b"")
    assert view.look_up(ip_address(GERMANY), time.time()).country.value == "DE"


def test_a_missing_file_a_directory_and_a_large_file_are_faults_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.mmdb"
    large.write_bytes(b"x" * 100)
    monkeypatch.setattr(module, "MAX_DATABASE_BYTES", 99)
    sources = NetworkSources(str(tmp_path / "none"), str(tmp_path), str(large))
    with pytest.raises(SettingsErrors) as caught:
        NetworkDatabases(sources)
    texts = "\n".join(str(fault) for fault in caught.value.faults)
    assert "none: cannot be read: No such file or directory; correct `networks.country`" in texts
    assert "correct `networks.asn`" in texts
    assert "large.mmdb: has more than 99 bytes" in texts


def test_facts_have_the_times_between_which_they_stay_the_same(databases: NetworkSources) -> None:
    view, address, built = NetworkDatabases(only(databases)), ip_address(GERMANY), NOW - 3600
    begin, end = built - CLOCK_SKEW, built + 30 * 86400
    for now, since, until in ((NOW, begin, end), (end + 1, end, inf), (begin - 1, -inf, begin), (end, end, end)):
        found = view.look_up(address, now)
        assert (found.since, found.until) == (since, until)
    assert view.look_up(address, end).country.value == view.look_up(address, begin).country.value == "DE"
