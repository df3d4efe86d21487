"""Headings, wrappings and names of documents: every deviation is a fault with position and hint."""

from __future__ import annotations

import json

import pytest

from tests.support.policies import STRICT, faults, in_mesh, snapshot
from zta_authz.policy.documents.reader import KINDS

TOP = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
HEAD = f"{TOP}metadata: {{name: p}}\n"
GOOD = f"{HEAD}spec: {{}}\n"
BAD = f"{HEAD}spec: {{ruels: []}}\n"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
KNOWN = ", ".join(sorted({kind for _, kind in KINDS} | {"ConfigMap"}))


def policies(*texts: str) -> list[str]:
    return [policy.ref.name for policy in snapshot(*texts).table.policies]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: the file has no documents; add a policy or remove the file"),
        ("# nothing\n---\n", "1:1: the file has no documents; add a policy or remove the file"),
        ("- a\n", "1:1: a document is a mapping, not a list; start with `apiVersion:` and `kind:`"),
        ("hello\n", "1:1: a document is a mapping, not a string; start with `apiVersion:` and `kind:`"),
        ("apiVersion: v1\n", "1:1: the document has no `kind`; add `kind`"),
        ("kind: AuthorizationPolicy\n", "1:1: the document has no `apiVersion`; add `apiVersion`"),
        (
            "apiVersion: v1\nkind: 7\n",
            '2:7: `kind` has the integer `7` where a string is expected; write it in quotes: "7"',
        ),
        ("apiVersion: v1\nkind: ''\n", "2:7: `kind` is empty; write a value or remove the field"),
        (
            "apiVersion: zta.dev/v1\nkind: Secret\n",
            f"2:7: unknown kind `Secret` (apiVersion `zta.dev/v1`); known kinds: {KNOWN}",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy\n",
            "2:7: unknown kind `AuthorisationPolicy` (apiVersion `security.istio.io/v1`); did you mean `AuthorizationPolicy`?",
        ),
        (
            "apiVersion: security.istio.io/v2\nkind: AuthorizationPolicy\n",
            "1:13: unknown apiVersion `security.istio.io/v2` for AuthorizationPolicy; write `security.istio.io/v1`",
        ),
        (f"{HEAD}sepc: {{}}\nspec: {{}}\n", "4:1: unknown field `sepc` in AuthorizationPolicy; did you mean `spec`?"),
        (HEAD, "1:1: AuthorizationPolicy has no `spec`; add `spec`"),
        (f"{HEAD}spec: []\n", "4:7: `spec` is a list, not a mapping; write the fields below it, or `spec: {}`"),
        (f"{TOP}spec: {{}}\n", "1:1: AuthorizationPolicy has no `metadata`; add `metadata`"),
        (
            f"{TOP}metadata: [a]\nspec: {{}}\n",
            "3:11: `metadata` is a list where a mapping of fields is expected; write a mapping of fields",
        ),
        (f"{TOP}metadata: {{namespace: x}}\nspec: {{}}\n", "3:11: metadata has no `name`; add `name`"),
        (
            f"{TOP}metadata: {{name: a/b}}\nspec: {{}}\n",
            "3:11: `metadata.name` `a/b` has a `/`; use a Kubernetes object name",
        ),
        (
            f"{TOP}metadata: {{name: p, nmaespace: x}}\nspec: {{}}\n",
            "3:21: unknown field `nmaespace` in metadata; did you mean `namespace`?",
        ),
        (
            f"{TOP}metadata: {{name: p, namespace: 7}}\nspec: {{}}\n",
            '3:32: `metadata.namespace` has the integer `7` where a string is expected; write it in quotes: "7"',
        ),
        (
            f"{TOP}metadata: {{name: p, labels: {{a: 1.5}}}}\nspec: {{}}\n",
            '3:33: `metadata.labels.a` has the number `1.5` where a string is expected; write it in quotes: "1.5"',
        ),
        (
            f"{TOP}metadata: {{name: p, annotations: []}}\nspec: {{}}\n",
            "3:34: `metadata.annotations` is a list where a mapping of strings is expected; write a mapping of strings",
        ),
    ],
)
def test_an_invalid_heading_is_reported_with_position_and_hint(text: str, fault: str) -> None:
    assert faults(text) == [f"a.yaml:{fault}"]


def test_a_long_value_is_shortened_in_messages() -> None:
    fault = faults(f"apiVersion: v1\nkind: {'7' * 100}\n")[0]
    assert f"`{'7' * 57}...`" in fault


def test_metadata_that_the_api_server_adds_is_accepted() -> None:
    metadata = (
        "{name: p, uid: u, generation: 1, creationTimestamp: 2024-01-01T00:00:00Z, managedFields: [], labels: {a: ''}}"
    )
    assert policies(f"{TOP}metadata: {metadata}\nspec: {{}}\nstatus: {{}}\n") == ["default/p"]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_both_versions_of_istio_are_read(version: str) -> None:
    assert policies(GOOD.replace("v1", version)) == ["default/p"]


def test_a_document_without_namespace_belongs_to_the_workloads_namespace() -> None:
    table = snapshot(GOOD, options=in_mesh(STRICT, "cluster.local", namespace="shop")).table
    assert [policy.ref.name for policy in table.policies] == ["shop/p"]


def test_a_duplicate_name_is_a_fault_that_names_the_first_document() -> None:
    assert faults(f"{GOOD}---\n{GOOD}") == [
        "a.yaml:8:18: duplicate AuthorizationPolicy `default/p` (first at a.yaml:3); rename or remove one of the two"
    ]
    assert faults(GOOD, f"# elsewhere\n{GOOD}") == [
        "b.yaml:4:18: duplicate AuthorizationPolicy `default/p` (first at a.yaml:3); rename or remove one of the two"
    ]


def test_the_same_name_in_another_namespace_or_kind_is_not_a_duplicate() -> None:
    other = GOOD.replace("name: p", "name: p, namespace: other")
    authentication = GOOD.replace("AuthorizationPolicy", "RequestAuthentication")
    assert policies(GOOD, other, authentication) == ["default/p", "other/p"]


def test_faults_of_all_files_are_in_one_report_in_order() -> None:
    second = f"{BAD.replace('name: p', 'name: q')}---\n- x\n"
    assert faults(BAD, second, "- y\n", GOOD.replace("name: p", "name: r")) == [
        "a.yaml:4:8: unknown field `ruels` in AuthorizationPolicy.spec; did you mean `rules`?",
        "b.yaml:4:8: unknown field `ruels` in AuthorizationPolicy.spec; did you mean `rules`?",
        "b.yaml:6:1: a document is a mapping, not a list; start with `apiVersion:` and `kind:`",
        "c.yaml:1:1: a document is a mapping, not a list; start with `apiVersion:` and `kind:`",
    ]


def test_a_config_maps_values_are_read_as_files() -> None:
    indented = "".join(f"    {line}\n" for line in GOOD.splitlines())
    other = indented.replace("name: p", "name: q")
    text = f"{CONFIG_MAP}immutable: true\ndata:\n  one.yaml: |\n{indented}  two.yaml: |-\n{indented.replace('name: p', 'name: r')}    ---\n{other}"
    assert policies(text) == ["default/p", "default/q", "default/r"]


def test_a_fault_in_a_config_maps_block_text_has_its_position_in_the_file() -> None:
    indented = "".join(f"      {line}\n" for line in BAD.splitlines())
    text = f"{CONFIG_MAP}data:\n  one.yaml: |\n\n{indented}      ---\n      a: {{b: c}}}}\n"
    reported = faults(text)
    assert reported[0] == "a.yaml:10:14: unknown field `ruels` in AuthorizationPolicy.spec; did you mean `rules`?"
    assert reported[1].startswith("a.yaml:12:16: not valid YAML")


def test_a_warning_about_a_policy_in_a_config_map_has_its_position_in_the_file() -> None:
    custom = HEAD + "spec: {action: CUSTOM}\n"
    indented = "".join(f"    {line}\n" for line in custom.splitlines())
    warning = snapshot(f"{CONFIG_MAP}data:\n  a: |\n{indented}").warnings[0]
    assert (warning.source, warning.line, warning.column) == ("a.yaml", 6, 5)


@pytest.mark.parametrize("value", [json.dumps(BAD), f"'{BAD.replace(chr(10), chr(10) * 2)}'"])
def test_a_fault_in_a_quoted_value_of_a_config_map_names_the_key_instead(value: str) -> None:
    reported = faults(f"{CONFIG_MAP}data:\n  one.yaml: {value}\n")
    assert reported == [
        "a.yaml[one.yaml]:4:8: unknown field `ruels` in AuthorizationPolicy.spec; did you mean `rules`?"
    ]


def test_a_folded_value_of_a_config_map_names_the_key_instead() -> None:
    reported = faults(f"{CONFIG_MAP}data:\n  one.yaml: >\n    {{apiVersion: zta.dev/v1,\n    kind: Secret}}\n")
    assert reported == [f"a.yaml[one.yaml]:1:32: unknown kind `Secret` (apiVersion `zta.dev/v1`); known kinds: {KNOWN}"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (CONFIG_MAP, "1:1: ConfigMap has no `data`; add `data`"),
        (f"{CONFIG_MAP}data: {{}}\n", "4:7: `data` has no policies; add a key whose value is a policy document"),
        (f"{CONFIG_MAP}data: []\n", "4:7: `data` has no policies; add a key whose value is a policy document"),
        (f"{CONFIG_MAP}data: {{a: ''}}\n", "4:11: `data.a` is empty; write a value or remove the field"),
        (f"{CONFIG_MAP}data: {{a: '# x'}}\n", "4:11: `data.a` has no documents; add a policy or remove the key"),
        (
            f"{CONFIG_MAP}data: {{a: 1}}\n",
            '4:11: `data.a` has the integer `1` where a string is expected; write it in quotes: "1"',
        ),
        (
            f"{CONFIG_MAP}dat: {{}}\ndata: {{a: '{{apiVersion: v1, kind: List, items: [x]}}'}}\n",
            "4:1: unknown field `dat` in ConfigMap; did you mean `data`?",
        ),
    ],
)
def test_a_config_map_without_policies_is_a_fault(text: str, fault: str) -> None:
    assert f"a.yaml:{fault}" in faults(text)


def test_binary_data_of_a_config_map_is_not_skipped() -> None:
    indented = "".join(f"    {line}\n" for line in GOOD.splitlines())
    assert faults(f"{CONFIG_MAP}binaryData: {{a: eA==}}\ndata:\n  a: |\n{indented}") == [
        "a.yaml:4:13: `binaryData` can't contain policies; move them to `data`"
    ]


def test_a_list_is_unwrapped_and_its_faults_have_positions_in_the_file() -> None:
    items = [json.loads(json.dumps({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}))]
    items[0] |= {"metadata": {"name": "p"}, "spec": {}}
    listed = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}
    assert policies(json.dumps(listed)) == ["default/p"]
    assert faults("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: zta.dev/v1, kind: Pod}\n") == [
        f"a.yaml:4:34: unknown kind `Pod` (apiVersion `zta.dev/v1`); known kinds: {KNOWN}"
    ]
    assert faults("apiVersion: v1\nkind: List\n") == ["a.yaml:1:1: List has no `items`; add `items`"]
    assert faults("apiVersion: v1\nkind: List\nitems: []\n") == [
        "a.yaml:3:8: `items` is an empty list; list at least one of the documents, or remove the field"
    ]


def test_wrapping_is_bounded() -> None:
    text = json.dumps(
        {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}, "spec": {}}
    )
    for _ in range(3):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(text)]})
    assert policies(text) == ["default/p"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(text)]})
    assert "List inside List is nested deeper than 3 levels; unwrap it" in faults(text)[0]


def test_a_config_map_in_a_list_names_its_key() -> None:
    inner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": BAD}}
    reported = faults(json.dumps({"apiVersion": "v1", "kind": "List", "items": [inner]}))
    assert reported == ["a.yaml[k]:4:8: unknown field `ruels` in AuthorizationPolicy.spec; did you mean `rules`?"]


def notes(*texts: str) -> list[str]:
    return [str(note) for note in snapshot(*texts).notes]


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("security.istio.io/v1", "PeerAuthentication"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("networking.istio.io/v1", "Gateway"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("trust.cert-manager.io/v1alpha1", "Bundle"),
        ("certificates.k8s.io/v1beta1", "ClusterTrustBundle"),
        ("cert-manager.io/v1", "Issuer"),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "Secret"),
        ("v1", "ServiceAccount"),
        ("zta.dev/v1", "PolicyTest"),
    ],
)
def test_a_kind_of_another_application_is_noted_and_skipped(version: str, kind: str) -> None:
    foreign = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: 7\nwhatever: []\n"
    assert policies(foreign, GOOD) == ["default/p"]
    (note,) = notes(f"---\n{foreign}", GOOD)
    assert note.startswith(f"a.yaml:2:1: {kind} (apiVersion `{version}`) is not read: ")


@pytest.mark.parametrize(
    ("version", "kind", "hint"),
    [
        ("security.istio.io/v1", "AuthorisationPolicy", "did you mean `AuthorizationPolicy`?"),
        ("security.istio.io/v1", "Authorization", "did you mean `AuthorizationPolicy`?"),
        ("security.istio.io/v1", "PeerAuthentications", "known kinds: "),
        ("security.istio.io/v1", "RequestAuthentications", "did you mean `RequestAuthentication`?"),
        ("networking.istio.io/v1", "AuthorizationPolicy", "write `security.istio.io/v1`, or keep"),
        ("networking.istio.io/v1", "AuthorizationPolcy", "did you mean `AuthorizationPolicy`?"),
        ("security.istio.io", "authorizationpolicy", "did you mean `AuthorizationPolicy`?"),
        ("v1", "AuthorizationPolicy", "write `security.istio.io/v1`"),
        ("v1", "Configmap", "did you mean `ConfigMap`?"),
        ("zta.dev/v1", "TrustBundel", "did you mean `TrustBundle`?"),
        ("zta.dev/v2", "RevocationList", "write `zta.dev/v1`"),
        ("zta.dev/v1", "Whatever", "known kinds: "),
        ("zta.dv/v1", "Whatever", "did you mean `zta.dev`?"),
        ("securty.istio.io/v1", "Policies", "did you mean `security.istio.io`?"),
        ("rbac.istio.io/v1alpha1", "ServiceRole", "write an AuthorizationPolicy"),
        ("authentication.istio.io/v1alpha1", "Policy", "write an AuthorizationPolicy"),
    ],
)
def test_a_misspelled_kind_or_api_group_is_a_fault(version: str, kind: str, hint: str) -> None:
    (fault,) = faults(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n")
    assert hint in fault


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("app.properties", "a=b"),
        ("nginx.conf", "server {\n  listen 80;\n}\n"),
        ("application.yaml", "spring: {port: 80}\nlogging: {level: info}\n"),
        ("LEVEL", "info"),
        ("feature.json", '{"enabled": true}'),
    ],
)
def test_an_applications_config_map_beside_the_policies_is_noted_and_skipped(key: str, value: str) -> None:
    text = f"{CONFIG_MAP}data: {{{key}: {json.dumps(value)}}}\n"
    assert policies(text, GOOD) == ["default/p"]
    (note,) = notes(text, GOOD)
    assert note.startswith("a.yaml:4:")
    assert f"`data.{key}`" in note
    assert " is not read" in note


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy", "kind: AuthorizationPolicy\nspec: {}\n"),
        ("policy", "apiversion: security.istio.io/v1\nknd: AuthorizationPolicy\nspce: {}\n"),
        ("policy", "metadat: {name: p}\nspecs: {rules: [{}]}\n"),
        ("policy", "rules: [{}]\n"),
        ("policy", "- apiVersion: security.istio.io/v1\n  kind: AuthorizationPolicy\n"),
        ("policy", "apiVersion: security.istio.io/v1\nkind: [\n"),
        ("policy.yaml", "a: [\n"),
        ("policy.yaml", "# nothing\n"),
        ("policy", "~"),
        ("policy", '"apiVersion: security.istio.io/v1"'),
    ],
)
def test_a_config_map_value_that_resembles_a_policy_is_a_fault(key: str, value: str) -> None:
    assert faults(f"{CONFIG_MAP}data: {{{key}: {json.dumps(value)}}}\n")


def test_metadata_fields_without_a_value_count_as_absent() -> None:
    assert policies(f"{TOP}metadata:\n  name: p\n  namespace:\n  labels:\n  annotations: null\nspec: {{}}\n") == [
        "default/p"
    ]
