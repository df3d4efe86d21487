from __future__ import annotations

import io
from time import process_time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from rich.console import Console

from tests.unit.cli.compliance.installations import check_of, installation, report
from zta_authz.cli import main
from zta_authz.cli.compliance.authorizers import Overrides
from zta_authz.cli.compliance.catalogue import CHECKS, REQUIREMENTS, judge
from zta_authz.cli.compliance.evidence import Status
from zta_authz.cli.compliance.installation import load_installation
from zta_authz.cli.compliance.report import exit_status, print_report, report_fields
from zta_authz.errors import FaultsError

if TYPE_CHECKING:
    from pathlib import Path

RICH = """\
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: a, namespace: shop}
spec:
  configPatches:
  - {applyTo: HTTP_FILTER, patch: {operation: MERGE, value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz, include_peer_certificate: true}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: zta}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}], ports: [{port: 1}]}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: a, namespace: shop}
spec: {targetRefs: [{kind: HTTPRoute, name: r}], extAuth: {timeout: 1s, grpc: {backendRefs: [{name: zta-authz}]}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: g}]}
---
apiVersion: v1
kind: Service
metadata: {name: zta-authz, namespace: zta}
spec: {selector: {app: zta-authz}}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: a, namespace: zta}
spec: {selector: {matchLabels: {app: zta-authz}}}
---
static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {"@type": x}}]}]}], clusters: [{name: a}]}
"""
DOCUMENTS: list[Any] = [*yaml.safe_load_all(installation()), *yaml.safe_load_all(RICH)]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(location for step, below in steps for location in places(below, (*path, step)))]


PLACES = [location for location in places(DOCUMENTS) if location]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("0.0.0.0/0"),
    lambda embedded: (
        st.lists(embedded, max_size=2) | st.dictionaries(st.sampled_from(["name", "kind", "x"]), embedded, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(location=st.sampled_from(PLACES), value=ANYTHING)
def test_arbitrary_manifests_are_reported_on_or_refused(tmp_path: Path, location: tuple[Any, ...], value: Any) -> None:
    changed = yaml.safe_load(yaml.safe_dump(DOCUMENTS))
    holder = changed
    for step in location[:-1]:
        holder = holder[step]
    holder[location[-1]] = value
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(changed))
    try:
        loaded = load_installation([str(file)], Overrides(), 0.0)
    except FaultsError:
        return
    evidence = judge(loaded)
    assert [result.check for result in evidence] == list(CHECKS)
    report_fields(loaded, evidence)


NAMESPACE = """
---
apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {istio-injection: enabled}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: NS}
spec: {action: CUSTOM, provider: {name: zta-authz}, rules: [{}]}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: ask, namespace: NS}
spec:
  configPatches:
  - {applyTo: HTTP_FILTER, patch: {operation: MERGE, value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: NS}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""
APPLICATION = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: APP, namespace: NS}
spec: {template: {metadata: {labels: {app: APP}}, spec: {containers: [{name: a, image: b}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: APP, namespace: NS}
spec: {selector: {app: APP}}
"""


def test_thousands_of_objects_are_read_in_seconds(tmp_path: Path) -> None:
    """Looked up without an index they took longer than anybody waits: the bound is far from both."""
    text = installation()
    for namespace in range(200):
        text += (NAMESPACE + "".join(APPLICATION.replace("APP", f"a{n}") for n in range(4))).replace(
            "NS", f"n{namespace}"
        )
    (tmp_path / "all.yaml").write_text(text)
    begun = process_time()
    loaded = load_installation([str(tmp_path)], Overrides(), 0.0)
    judge(loaded)
    assert len(loaded.documents) > 2000
    assert process_time() - begun < 30


def test_a_narrow_terminal_gets_lines_and_no_table(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(installation())
    evidence = judge(load_installation([str(tmp_path)], Overrides(), 0.0))
    shown = io.StringIO()
    print_report(Console(file=shown, width=40), evidence, quiet=True)
    lines = shown.getvalue().splitlines()
    assert any(line.startswith("T1 ") for line in lines)
    assert any(line.startswith("traces (T7)") for line in lines)
    assert not any("│" in line for line in lines)
    assert max(map(len, lines)) <= 40


def test_every_check_is_evidence_for_something_and_everything_has_checks() -> None:
    known = {requirement.id for requirement in REQUIREMENTS}
    named = {name for check in CHECKS for name in check.requirements}
    assert named == known
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert all(check.requirements for check in CHECKS)


def test_the_seven_tenets_and_three_controls_are_reported_on() -> None:
    assert [requirement.id for requirement in REQUIREMENTS] == [
        "T1",
        "T2",
        "T3",
        "T4",
        "T5",
        "T6",
        "T7",
        "AC-4",
        "SC-7",
        "SC-8",
    ]


def test_gaps_exit_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.yaml").write_text(installation())
    assert main(["compliance", str(tmp_path)]) == 1
    assert "satisfied," in capsys.readouterr().out


def test_unseen_evidence_counts_only_with_strict(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(installation())
    evidence = [result for result in judge(load_installation([str(tmp_path)], Overrides(), 0.0)) if not result.missing]
    assert any(result.status is Status.UNSEEN for result in evidence)
    assert exit_status(evidence, strict=False) == 0
    assert exit_status(evidence, strict=True) == 1
    assert exit_status([result for result in evidence if result.status is Status.SATISFIED], strict=True) == 0


def test_the_table_has_no_colours_where_nobody_looks_and_escapes_what_steers_terminals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = installation().replace("name: ask", 'name: "ask\\e[31m[bold]"')
    (tmp_path / "all.yaml").write_text(text)
    main(["compliance", str(tmp_path)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "ask\\x1b[31m[bold]" in out
    assert "not a certification" in out


def test_quiet_omits_satisfied_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.yaml").write_text(installation())
    main(["compliance", str(tmp_path), "--quiet"])
    out = capsys.readouterr().out
    assert "found " not in out.partition("Not shown by manifests")[0].replace("found, or missing", "")
    assert "pods-restricted" in out
    assert "changes-effective" not in out


def test_a_namespace_that_is_not_among_the_files_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = check_of(report(tmp_path, capsys, installation()), "namespaces-restricted")
    assert (check["status"], check["missing"]) == ("cannot be seen here", [])


def test_checks_that_do_not_apply_have_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = check_of(report(tmp_path, capsys, installation()), "tokens-for-us")
    assert (check["status"], check["reason"]) == ("not applicable", "no policy reads tokens")


def test_the_time_of_judgement_is_the_one_that_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tmp_path, capsys, installation(), "--at", "2030-01-01T00:00:00Z")["at"] == "2030-01-01T00:00:00Z"


def test_a_waiver_changes_the_exit_status_and_not_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(installation())
    before = report(tmp_path, capsys, installation())
    missing = [check["id"] for check in before["checks"] if check["status"] == "missing"]
    assert main(["compliance", str(file)]) == 1
    waivers = [word for name in missing for word in ("--waive", f"{name}=reviewed\x1b by Ann")]
    assert main(["compliance", str(file), *waivers]) == 0
    assert main(["compliance", str(file), *waivers[2:]]) == 1
    shown = capsys.readouterr().out
    assert "waived: reviewed\\x1b by Ann" in shown
    waived = report(tmp_path, capsys, installation(), *waivers)
    assert waived["summary"] == {**before["summary"], "waived": len(missing)}
    assert waived["requirements"] == before["requirements"]
    first = check_of(waived, missing[0])
    assert first == {**check_of(before, missing[0]), "waiver": "reviewed\x1b by Ann"}


def test_a_waiver_that_is_not_needed_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = report(tmp_path, capsys, installation())
    good = next(check["id"] for check in before["checks"] if check["status"] == "satisfied")
    main(["compliance", str(tmp_path / "all.yaml"), "--waive", f"{good}=old"])
    assert "waiver is not needed: old" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("waiver", "message"),
    [
        ("client-mtls=x", "did you mean `clients-mtls`?"),
        ("clients-mtls", "add a reason"),
        ("clients-mtls= ", "add a reason"),
    ],
)
def test_a_waiver_names_a_check_and_a_reason(capsys: pytest.CaptureFixture[str], waiver: str, message: str) -> None:
    with pytest.raises(SystemExit):
        main(["compliance", "x", "--waive", waiver])
    assert message in capsys.readouterr().err
