"""Every mistake in a class file is answered with file, line, field, what is wrong and what would be right."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.class_file import ClassFileError, Problem, example, load, schema
from infra.spec import ClassSpec, Gpu, OneMachine, Platform
from infra.values import amount

_DEMO = Path(__file__).parents[2] / "labs" / "classes" / "demo.yaml"

_LEAST = "name: demo\nstudents:\n  - {id: alice, email: alice@example.org}\n"
_PLATFORM = """\
platform:
  kind: kubeflow
  kubeconfig: cluster.kubeconfig
  url: https://kubeflow.example.org/
  object_store: {endpoint: 'https://s3.example.org'}
  api_server_cidrs: [192.0.2.10/32]
  notebook_image: registry.example.org/notebook:1
"""


def _load(directory: Path, text: str | bytes) -> ClassSpec:
    file = directory / "class.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file)


def _found(directory: Path, text: str) -> tuple[ClassSpec | None, tuple[Problem, ...]]:
    """The class, or what is wrong with its file."""
    try:
        return _load(directory, text), ()
    except ClassFileError as error:
        return None, error.problems


def _refusal(directory: Path, text: str | bytes) -> str:
    with pytest.raises(ClassFileError) as caught:
        _load(directory, text)
    return str(caught.value).replace(f"{directory}/", "")


def test_the_demo_class_has_two_students_and_both_notebooks(demo: ClassSpec) -> None:
    assert [student.id for student in demo.students] == ["alice", "bob"]
    assert [notebook.name for notebook in demo.notebooks] == ["cpu-notebook", "gpu-notebook"]
    assert demo.gpus() == {"nvidia.com/gpu": 1}
    assert isinstance(demo.platform, OneMachine)


def test_what_is_left_out_takes_the_reference_class(tmp_path: Path) -> None:
    spec = _load(tmp_path, _LEAST)
    cpu, gpu = spec.notebooks
    assert (cpu.cpu, cpu.most_cpu, cpu.memory, cpu.most_memory, cpu.gpu) == ("2", "2", "8Gi", "8Gi", None)
    assert gpu.gpu == Gpu(resource="nvidia.com/gpu", count=1)
    assert spec.labs == ("simple_pipeline",)


@pytest.mark.parametrize(
    ("added", "answer"),
    [
        ("notebook: []\n", "class.yaml:4: notebook: is not a known field; did you mean notebooks?"),
        ("quota: {cpus: 2}\n", "class.yaml:4: quota.cpus: is not a known field; did you mean cpu?"),
        (
            "  - {id: alice, email: b@example.org}\n",
            "class.yaml:4: students[1].id: 'alice' is given twice, first as number 1 of students; "
            "give number 2 another id",
        ),
        (
            "  - {id: bob, email: ALICE@example.org}\n",
            "class.yaml:4: students[1].email: 'alice@example.org' is given twice, first as number 1 of students; "
            "give number 2 another email",
        ),
        (
            "notebooks:\n- name: x\n  memory: 8gb\n",
            "class.yaml:6: notebooks[0].memory: '8gb' is not a Kubernetes quantity; write for example 8Gi",
        ),
        (
            "notebooks:\n- name: x\n  memory: 8\n",
            "class.yaml:6: notebooks[0].memory: '8' is less bytes than any class can use; write for example 8Gi",
        ),
        (
            "notebooks: 3\n",
            "class.yaml:4: notebooks: '3' is not a list; write for example `notebooks: [{name: cpu-notebook}]`",
        ),
        (
            "notebooks: [{name: x, cpu: 2, cpu_limit: 1}]\n",
            "class.yaml:4: notebooks[0]: cpu_limit 1 is less than cpu 2; write cpu_limit: 2 or more",
        ),
        (
            "quota: {memory: 10Gi}\n",
            "class.yaml:4: quota.memory: 10Gi does not hold all notebooks of a seat and a pipeline run beside them; "
            "write memory: 26Gi or more",
        ),
        ("name: other\n", "class.yaml:4: name: is given twice, first in line 1; take one of the two away"),
        (
            "platform: {kind: minikube}\n",
            "class.yaml:4: platform: is not a platform; write `kind: one-machine` or `kind: kubeflow` below it",
        ),
        (
            "notebooks: [{name: x, memory: 1Gi, shared_memory: 2Gi}]\n",
            "class.yaml:4: notebooks[0]: shared_memory 2Gi is more than the memory limit 1Gi, of which it is a part; "
            "write shared_memory: 1Gi or less",
        ),
        (
            "notebooks:\n- name: x\n  environment:\n    NB_PREFIX: /\n",
            "class.yaml:7: notebooks[0].environment.NB_PREFIX: NB_PREFIX is set by the program; "
            "give it another name, for example MY_NB_PREFIX",
        ),
        (
            "notebooks:\n- name: x\n  tolerations:\n  - {operator: Equal}\n",
            "class.yaml:7: notebooks[0].tolerations[0].key: is a toleration without a key; "
            "write its `key`, or `operator: Exists`",
        ),
        (
            "overrides: {alicia: {}}\n",
            "class.yaml:4: overrides.alicia: is no student of the class; "
            "take the override away, or name a student of the class; did you mean alice?",
        ),
        (
            "overrides: {zoe: {}}\n",
            "class.yaml:4: overrides.zoe: is no student of the class; "
            "take the override away, or name a student of the class; there are: alice",
        ),
        (
            "overrides:\n  alice:\n    notebooks:\n      cpu-notebok: {}\n",
            "class.yaml:7: overrides.alice.notebooks.cpu-notebok: is no notebook of the class; "
            "did you mean cpu-notebook?",
        ),
        (
            "overrides:\n  alice:\n    notebooks:\n      cpu-notebook: {cpu_limit: 1}\n",
            "class.yaml:7: overrides.alice.notebooks.cpu-notebook: cpu_limit 1 is less than cpu 2; "
            "write cpu_limit: 2 or more",
        ),
        (
            "overrides:\n  alice:\n    notebooks:\n      gpu-notebook: {memory: 20Gi}\n",
            "class.yaml:5: overrides.alice.quota.memory: 32Gi does not hold all notebooks of a seat and a pipeline run "
            "beside them; write memory: 38Gi or more",
        ),
        (
            "overrides:\n  alice:\n    notebooks:\n      gpu-notebook:\n        memori: 20Gi\n",
            "class.yaml:8: overrides.alice.notebooks.gpu-notebook.memori: is not a known field; did you mean memory?",
        ),
        (
            "bucket: {lifecycle_days: soon}\n",
            "class.yaml:4: bucket.lifecycle_days: 'soon' is refused (should be a valid integer); "
            "write for example `lifecycle_days: 30`",
        ),
        (
            "session: {start: tomorrow, end: 2026-12-01 17:00}\n",
            "class.yaml:4: session.start: 'tomorrow' is not a date and a time; write for example 2026-12-01 09:00",
        ),
        (
            "session: {start: 2026-12-01 17:00, end: 2026-12-01 09:00}\n",
            "class.yaml:4: session.end: is not after the start; write an end after 2026-12-01 17:00",
        ),
        (
            "session: {start: 2026-12-01 09:00, end: 2026-12-01 17:00, time_zone: Soul}\n",
            "class.yaml:4: session.time_zone: 'Soul' is no IANA time zone that this machine knows; "
            "write for example Asia/Seoul",
        ),
        (
            "access: {host: 198.18.0.100}\n",
            "class.yaml:4: access.host: '198.18.0.100' is not a host name; write for example class.example.org",
        ),
        (
            "access: {tls: {kind: self-signed}}\n",
            "class.yaml:4: access.tls: says nothing without a host name; write `host: class.example.org` beside it",
        ),
        (
            "access: {host: a.example.org, tls: {kind: files, certificate_file: a.crt}}\n",
            "class.yaml:4: access.tls.key_file: is missing, which `kind: files` needs; "
            "write for example `key_file: gateway.key`",
        ),
        (
            "access: {host: a.example.org, tls: {kind: self-signed, issuer: x}}\n",
            "class.yaml:4: access.tls.issuer: is not looked at with `kind: self-signed`; "
            "take it away, or write `kind: cert-manager`",
        ),
        (
            "tenancy: profile\n",
            "class.yaml:4: tenancy: profile needs Kubeflow's profile controller, which the one-machine platform does "
            "not have; write `tenancy: namespace`, or name another Kubeflow under `platform`",
        ),
        (
            "prices: {cpu_core_hour: -1}\n",
            "class.yaml:4: prices.cpu_core_hour: '-1' is refused (should be greater than or equal to 0); "
            "write for example `cpu_core_hour: 0.04`",
        ),
        (
            "roster: none.csv\n",
            "class.yaml:4: roster: none.csv: there is no such file; "
            "name the CSV file of the students, from this file's folder",
        ),
        (
            "roster: ~nobody-of-that-name/x.csv\n",
            "class.yaml:4: roster: '~nobody-of-that-name/x.csv' begins with a user that there is not; "
            "write the whole path",
        ),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_its_mending(tmp_path: Path, added: str, answer: str) -> None:
    assert _refusal(tmp_path, _LEAST + added) == answer


@pytest.mark.parametrize("name", ["My Class", "demo_1", "-demo", "demo-", "DEMO", "a" * 41, "", "ünï"])
def test_a_class_name_that_kubernetes_refuses_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    assert _refusal(tmp_path, _LEAST.replace("demo", f'"{name}"')).startswith("class.yaml:1: name: ")


def test_a_number_for_a_name_is_told_to_be_put_in_quotes(tmp_path: Path) -> None:
    assert _refusal(tmp_path, _LEAST.replace("demo", "2026")).endswith('put it in quotes: "2026"')


@pytest.mark.parametrize("email", ["alice", "a@b", "a,b@example.org", "a b@example.org", "alice@example.org,eve@x.org"])
def test_an_address_that_could_widen_the_gateways_rule_is_refused(tmp_path: Path, email: str) -> None:
    assert "is not an e-mail address" in _refusal(tmp_path, _LEAST.replace("alice@example.org", f"'{email}'"))


def test_several_mistakes_are_told_in_the_order_of_their_lines(tmp_path: Path) -> None:
    answer = _refusal(tmp_path, "name: Demo\nstudents: [{id: a}]\nlabs: x\n")
    assert [line.split(":")[1] for line in answer.splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n# nothing\n",
        b"- a\n",
        b"text",
        b"\x00\x01\x02",
        b"\xff\xfe\xfa",
        b"\x7fELF\x02\x01\x01",
        b"a: &a [*a]\n",
        b"a: " + b"[" * 600 + b"]" * 600,
        b"[" * 700,
        b"name: [\n",
        b"name: !!python/object/apply:os.system [ls]\n",
        b"? [a]\n: 1\n",
        b"name: 2020-13-45\n",
        b"on: 1\n",
        b"<<: 1\n",
        b"!!set {name, students}\n",
        b"!!str {=: name}\n",
        b"name: 0x" + b"f" * 4000,
        b"name: !!int {=: 0x" + b"f" * 4000 + b"}",
        b"x" * (2 << 20),
        (b"a: &a [" + b"x," * 9 + b"x]\n")
        + b"".join(b"%c: &%c [%s]\n" % (i + 1, i + 1, b",".join([b"*%c" % i] * 10)) for i in range(97, 105)),
    ],
)
def test_a_file_that_is_no_class_is_answered_and_not_stumbled_over(tmp_path: Path, content: bytes) -> None:
    assert _refusal(tmp_path, content).startswith("class.yaml")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "# A class\n!!set {name, students}\n",
            "class.yaml:2: is not a list of fields; write `name: demo` in its first line, and so on",
        ),
        (
            _LEAST.replace("demo", "0x" + "f" * 4000),
            "class.yaml:1: holds a value that cannot be read (a number of more than 100 digits); "
            "put such values in quotes",
        ),
        (
            _LEAST + "session: {start: !!timestamp soon}\n",
            "class.yaml:4: holds a value that cannot be read (it is no timestamp); put such values in quotes",
        ),
    ],
)
def test_a_tag_or_a_number_that_makes_no_value_is_answered_with_its_line(
    tmp_path: Path, text: str, answer: str
) -> None:
    assert _refusal(tmp_path, text) == answer


@given(st.binary(max_size=200))
@settings(max_examples=40)
def test_no_content_whatever_makes_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "class.yaml"
    file.write_bytes(content)
    with pytest.raises(ClassFileError):
        load(file)


def test_a_missing_file_and_a_directory_are_answered(tmp_path: Path) -> None:
    with pytest.raises(ClassFileError, match="there is no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ClassFileError, match="is a directory"):
        load(tmp_path)


def test_the_call_is_to_blame_for_a_bad_class_file() -> None:
    assert ClassFileError.exit_code == 2


def test_paths_of_a_platform_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    platform = _load(tmp_path, _LEAST + _PLATFORM).platform
    assert isinstance(platform, Platform)
    assert platform.kubeconfig == tmp_path.resolve() / "cluster.kubeconfig"
    assert platform.ca_file is None


@pytest.mark.parametrize(
    ("gateway", "answer"),
    [
        (
            "  gateway: {kind: istio}\n",
            "class.yaml:4: platform.gateway_namespace: is missing, which `gateway.kind: istio` needs; "
            "write for example `gateway_namespace: istio-system`",
        ),
        (
            "  gateway: {user_header: x-user}\n",
            "class.yaml:11: platform.gateway.user_header: is not looked at with `kind: traefik`; "
            "take it away, or write `kind: istio`",
        ),
        (
            "  gateway_namespace: istio-system\n  gateway: {kind: istio, principal: gateway}\n",
            "class.yaml:12: platform.gateway.principal: 'gateway' is refused (string should match pattern "
            "'^[a-z0-9.-]+/ns/[a-z0-9-]+/sa/[a-z0-9.-]+$'); write for example "
            "`principal: cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account`",
        ),
        (
            "  gateway: {kind: nginx}\n",
            "class.yaml:11: platform.gateway.kind: 'nginx' is refused (should be 'traefik' or 'istio'); "
            "write for example `kind: istio`",
        ),
    ],
)
def test_a_gateway_is_told_what_its_kind_lacks_or_does_not_look_at(tmp_path: Path, gateway: str, answer: str) -> None:
    assert _refusal(tmp_path, _LEAST + _PLATFORM + gateway) == answer


def test_behind_istio_a_platform_names_its_gateways_namespace_and_the_rest_is_kubeflows(tmp_path: Path) -> None:
    behind = "  gateway: {kind: istio}\n  gateway_namespace: istio-system\n"
    platform = _load(tmp_path, _LEAST + _PLATFORM + behind).platform
    assert isinstance(platform, Platform)
    assert platform.gateway.user_header == "kubeflow-userid"
    assert _load(tmp_path, _LEAST + _PLATFORM).platform.model_dump()["gateway"]["kind"] == "traefik"


@pytest.mark.parametrize(
    ("store", "answer"),
    [
        (
            "{kind: azure}",
            "class.yaml:8: platform.object_store.kind: 'azure' is refused (should be 'seaweedfs', 'minio', 'aws' or "
            "'given'); write for example `kind: aws`",
        ),
        (
            "{kind: minio}",
            "class.yaml:8: platform.object_store.endpoint: is missing, which `kind: minio` needs; "
            "write for example `endpoint: https://s3.example.org`",
        ),
        (
            "{kind: given, endpoint: 'https://s3.example.org'}",
            "class.yaml:8: platform.object_store.keys_file: is missing, which `kind: given` needs; "
            "write for example `keys_file: keys.csv`",
        ),
        (
            "{kind: minio, endpoint: 'https://s3.example.org', keys_file: keys.csv}",
            "class.yaml:8: platform.object_store.keys_file: is not looked at with `kind: minio`; "
            "take it away, or write `kind: given`",
        ),
        (
            "{kind: aws, endpoint: 'https://s3.example.org'}",
            "class.yaml:8: platform.object_store.endpoint: is not looked at with `kind: aws`; take it away; `region` "
            "says where it is",
        ),
        (
            "{kind: aws, region: Frankfurt}",
            "class.yaml:8: platform.object_store.region: 'Frankfurt' is refused (string should match pattern "
            "'^[a-z0-9-]+$'); write for example `region: us-east-1`",
        ),
    ],
)
def test_an_object_store_is_told_what_its_kind_needs(tmp_path: Path, store: str, answer: str) -> None:
    text = _PLATFORM.replace("{endpoint: 'https://s3.example.org'}", store)
    assert _refusal(tmp_path, _LEAST + text) == answer


@pytest.mark.parametrize(
    ("store", "endpoint", "in_cluster"),
    [
        ("{endpoint: 'https://s.org'}", "https://s.org", "http://seaweedfs.kubeflow:8333"),
        ("{kind: minio, endpoint: 'https://s.org'}", "https://s.org", "http://minio-service.kubeflow:9000"),
        ("{kind: given, endpoint: 'https://s.org', keys_file: k.csv}", "https://s.org", "https://s.org"),
        ("{kind: given, endpoint: 'https://s.org/', keys_file: k.csv}", "https://s.org", "https://s.org"),
        ("{kind: aws, region: cn-north-1}", *["https://s3.cn-north-1.amazonaws.com.cn"] * 2),
    ],
)
def test_where_an_object_store_is_follows_from_its_kind(
    tmp_path: Path, store: str, endpoint: str, in_cluster: str
) -> None:
    text = _PLATFORM.replace("{endpoint: 'https://s3.example.org'}", store)
    platform = _load(tmp_path, _LEAST + text).platform
    assert isinstance(platform, Platform)
    assert (platform.object_store.endpoint, platform.object_store.endpoint_in_cluster) == (endpoint, in_cluster)


def test_given_buckets_are_not_set_by_the_class_file(tmp_path: Path) -> None:
    store = "{kind: given, endpoint: 'https://s.org', keys_file: k.csv}"
    text = _PLATFORM.replace("{endpoint: 'https://s3.example.org'}", store)
    assert _refusal(tmp_path, _LEAST + "bucket: {versioning: true}\n" + text) == (
        "class.yaml:4: bucket: sets region, versioning or lifecycle_days of buckets that were given; "
        "take them away here, and set them where the buckets are made"
    )


def test_a_platform_without_what_reaches_it_is_told_field_by_field(tmp_path: Path) -> None:
    answer = _refusal(tmp_path, _LEAST + "platform: {kind: kubeflow, url: 'http://x'}\n")
    assert "platform.kubeconfig: is missing; write for example `kubeconfig: ~/.kube/config`" in answer
    assert "platform.url: 'http://x' is refused" in answer


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("100m", 0.1),
        ("2", 2),
        ("1Ki", 1024),
        ("8Gi", 8 * 2**30),
        ("1.5Gi", 1.5 * 2**30),
        ("1G", 10**9),
        ("1e9", 10**9),
        ("129e6", 129 * 10**6),
        ("1E3", 1000),
        ("1E", 10**18),
        ("5e-1", 0.5),
        (".5", 0.5),
        ("1.", 1),
        ("+2", 2),
        ("-1Gi", -(2**30)),
        ("1e999", 2**63 - 1),
        ("-9E999", 1 - 2**63),
        ("1e-999", 1e-9),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(quantity: str, number: float) -> None:
    assert float(amount(quantity)) == pytest.approx(number)


@pytest.mark.parametrize(
    "text", ["", ".", "+", "1e", "1e1.5", "1e1000", "1K", "1eGi", "1 Gi", "1_000", "٣", "NaN", "--1", "9" * 65]
)
def test_what_kubernetes_would_not_count_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity"):
        amount(text)


@pytest.mark.parametrize("text", ["1e9", ".5", "1.", "+2", "-2"])
def test_a_class_file_says_a_quantity_plainly(tmp_path: Path, text: str) -> None:
    answer = _refusal(tmp_path, f"{_LEAST}quota: {{memory: '{text}'}}\n")
    assert answer == f"class.yaml:4: quota.memory: '{text}' is not a Kubernetes quantity; write for example 8Gi"


def test_the_quota_of_the_demo_holds_its_notebooks_and_a_run(demo: ClassSpec) -> None:
    for field, need in demo.needs().items():
        given = getattr(demo.quota, field)
        assert need <= (amount(given) if isinstance(given, str) else given)


def test_a_roster_in_a_file_comes_before_the_students_of_the_class_file(tmp_path: Path) -> None:
    rows = '\ufeffEmail,id , name\r\nbob@example.org,bob,"Example, Bob"\r\n\r\nCY@example.org,cy,\r\n'
    (tmp_path / "students.csv").write_text(rows, encoding="utf-8")
    spec = _load(tmp_path, _LEAST + "roster: students.csv\n")
    assert [(student.id, student.email, student.name) for student in spec.students] == [
        ("bob", "bob@example.org", "Example, Bob"),
        ("cy", "cy@example.org", ""),
        ("alice", "alice@example.org", ""),
    ]
    assert _load(tmp_path, "name: demo\nroster: students.csv\n").students == spec.students[:2]


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ("", "students.csv:1: is empty; write `id,email,name` in its first line"),
        ("id,email\n", "students.csv:1: has no students; write a line for each below its first"),
        ("id,mail\n", "students.csv:1: 'mail' is not a known column; did you mean email?"),
        ("id,name\n", "students.csv:1: email: is a column that is missing; write `id,email,name` in its first line"),
        ("id,id,email\n", "students.csv:1: id: is given twice; take one of the two columns away"),
        (
            "id;email\n",
            "students.csv:1: names none of the columns; write `id,email,name` in its first line; "
            "commas divide the columns",
        ),
        (
            "id,email\na,a@x.org\n\nb,b\n",
            "students.csv:4: email: 'b' is not an e-mail address; write for example alice@example.org",
        ),
        ("id,email\n,a@x.org\n", "students.csv:2: id: is missing; write for example `id: alice`"),
        (
            "id,email\na,a@x.org,x\n",
            "students.csv:2: has 3 cells, but there are 2 columns; put a cell that holds a comma in double quotes",
        ),
        (
            'id,email,name\na,a@x.org,"A\nB"\na,b@x.org,\n',
            "students.csv:4: id: 'a' is given twice, first as number 1 of students; give number 2 another id",
        ),
        (
            'id,email\na,"a@x.org\n',
            "students.csv:2: is not valid CSV (unexpected end of data); "
            "close every double quote, and write a quote inside a cell twice",
        ),
    ],
)
def test_a_mistake_in_the_roster_is_answered_with_the_rosters_own_line(tmp_path: Path, rows: str, answer: str) -> None:
    (tmp_path / "students.csv").write_text(rows)
    assert _refusal(tmp_path, "name: demo\nroster: students.csv\n") == answer


def test_a_mistake_beside_a_roster_keeps_its_place_in_the_class_file(tmp_path: Path) -> None:
    (tmp_path / "students.csv").write_text("id,email\na,a@x.org\nb,b@x.org\n")
    answer = _refusal(tmp_path, "name: demo\nroster: students.csv\nstudents:\n- {id: c, email: c}\n")
    assert answer.startswith("class.yaml:4: students[0].email: 'c' is not an e-mail address")


def test_an_override_changes_one_seat_and_of_it_what_it_names_alone(tmp_path: Path) -> None:
    text = _LEAST + "  - {id: bob, email: bob@example.org}\n"
    text += "overrides: {bob: {notebooks: {gpu-notebook: {memory: 16Gi, gpu: null}}, quota: {memory: 48Gi}}}\n"
    spec = _load(tmp_path, text)
    alice, bob = (spec.of(student) for student in spec.students)
    assert alice == spec
    assert bob.notebooks[0] == spec.notebooks[0]
    assert bob.notebooks[1] == spec.notebooks[1].model_copy(update={"memory": "16Gi", "gpu": None})
    assert bob.quota == spec.quota.model_copy(update={"memory": "48Gi"})
    assert (alice.gpus(), bob.gpus()) == ({"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 0})


@pytest.mark.parametrize(
    ("start", "hour"),
    [("2026-12-01 09:00", 0), ("2026-12-01T09:00:00", 0), ("2026-12-01 09:00+00:00", 9), ("2026-12-01T09:00:00Z", 9)],
)
def test_a_session_is_in_the_time_zone_of_the_class_unless_it_names_its_own(
    tmp_path: Path, start: str, hour: int
) -> None:
    text = f"{_LEAST}session: {{start: {start}, end: 2026-12-02 01:00, time_zone: Asia/Seoul}}\n"
    session = _load(tmp_path, text).session
    assert session is not None
    assert session.starts_at == datetime(2026, 12, 1, hour, tzinfo=UTC)
    assert session.ends_at == datetime(2026, 12, 1, 16, tzinfo=UTC)


def test_gpus_are_counted_where_no_notebook_has_any_and_of_every_resource_that_one_names(tmp_path: Path) -> None:
    text = f"{_LEAST}quota: {{gpus: 2}}\nnotebooks: [{{name: nb, cpu: 100m, memory: 1Gi"
    assert _load(tmp_path, f"{text}}}]\n").gpus() == {"nvidia.com/gpu": 2}
    assert _load(tmp_path, f"{text}, gpu: {{resource: amd.com/gpu}}}}]\n").gpus() == {
        "nvidia.com/gpu": 2,
        "amd.com/gpu": 3,
    }


def test_prices_are_exact(tmp_path: Path) -> None:
    prices = _load(tmp_path, _LEAST + "prices: {currency: KRW, cpu_core_hour: 0.1, gpu_hour: {a/b: 1200}}\n").prices
    assert prices is not None
    assert (prices.cpu_core_hour, prices.gpu_hour) == (Decimal("0.1"), {"a/b": Decimal(1200)})


def test_files_of_the_certificate_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    tls = "{kind: files, certificate_file: a.crt, key_file: /k/a.key}"
    found = _load(tmp_path, f"{_LEAST}access: {{host: CLASS.example.org, tls: {tls}}}\n").access
    assert found.host == "class.example.org"
    assert found.tls is not None
    assert (found.tls.certificate_file, found.tls.key_file) == (tmp_path.resolve() / "a.crt", Path("/k/a.key"))


def _uncommented(text: str, mark: str) -> str:
    return re.sub(rf"^{re.escape(mark)} ", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("platform", ["one-machine", "kubeflow"])
def test_the_file_that_init_writes_is_a_class_whatever_of_it_is_uncommented(
    tmp_path: Path, platform: Literal["one-machine", "kubeflow"]
) -> None:
    (tmp_path / "students.csv").write_text("id,email\nbob,bob@example.org\n")
    written = example(platform)
    plain = _load(tmp_path, written)
    assert plain.platform.kind == platform
    assert _load(tmp_path, _uncommented(written, "#")) == plain

    # Its description says of which kind alone it is.
    additions = "".join(line for line in written.splitlines(keepends=True) if "keys_file: keys.csv" not in line)
    everything = _load(tmp_path, _uncommented(_uncommented(additions, "#"), "#+"))
    left_out = {name for name, value in everything if value in (None, {}, ())}
    assert left_out == set()
    assert [student.id for student in everything.students] == ["bob", "alice"]


def _properties(part: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for field, described in part["properties"].items():
        yield f"{name}.{field}", described


def test_every_field_of_the_schema_is_described() -> None:
    made = schema()
    groups = made["$defs"]
    found = [*_properties(made, "class")]
    found += [pair for name, group in groups.items() for pair in _properties(group, name)]
    assert len(found) > 80
    for name, described in found:
        referred = groups.get(described.get("$ref", "").rpartition("/")[2], {})
        assert described.get("description") or referred.get("description"), name


def test_an_editor_takes_by_the_schema_what_the_program_takes() -> None:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    checker = jsonschema.Draft202012Validator(made)
    everything = _uncommented(_uncommented(example(), "#"), "#+")
    for text in (_DEMO.read_text(), example(), example("kubeflow"), everything):
        assert [error.message for error in checker.iter_errors(yaml.safe_load(text))] == []
    for wrong in ({"name": "demo"}, {"name": "demo", "roster": "a.csv", "notebook": []}):
        assert list(checker.iter_errors(wrong))


_FULL: dict[str, Any] = yaml.safe_load(_uncommented(_uncommented(example(), "#"), "#+"))
_FULL_PLATFORM: dict[str, Any] = yaml.safe_load(_uncommented(_uncommented(example("kubeflow"), "#"), "#+"))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _paths(value[key], (*path, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _with(value[path[0]], path[1:], new)
    return copied


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=10)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.sampled_from(
        [
            "~x/y",
            "a\0b",
            "9" * 5000,
            "1e400",
            "0x1F",
            "12:30:45",
            "America",
            "../..",
            "{x}",
            "=",
            "<<",
            "\ud800",
            "\x1b[0m",
        ]
    )
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_SCALARS, inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=150)
def test_no_value_whatever_in_any_field_makes_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    full = data.draw(st.sampled_from([_FULL, _FULL_PLATFORM]))
    for _ in range(data.draw(st.integers(1, 2))):
        full = _with(full, data.draw(st.sampled_from(list(_paths(full)))), data.draw(_VALUES))
    directory = tmp_path_factory.mktemp("fuzz")
    (directory / "students.csv").write_text("id,email\nbob,bob@example.org\n")
    spec, problems = _found(directory, yaml.safe_dump(full))
    for problem in problems:
        assert problem.line
        assert problem.wrong
        assert problem.mend
        assert str(problem).encode()
    if spec:
        assert all(spec.of(student).needs() for student in spec.students)


_TAGS = st.sampled_from(
    ["", *(f"!!{tag} " for tag in ("set", "binary", "omap", "pairs", "timestamp", "bool", "int", "str"))]
)
_BODIES = st.sampled_from(
    ["{name, students}", "{name: demo}", "{=: 7}", "[a: 1]", "[a]", "[]", "aGk=", "''", "x", "2026-12-01", "1:2:3"]
) | st.builds(
    lambda base, digits: base + "1" * digits, st.sampled_from(["0x", "0", "0b", "-0x", ""]), st.integers(1, 20_000)
)


@given(st.data())
@settings(max_examples=100)
def test_no_tag_and_no_number_whatever_in_any_field_makes_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from([(), *_paths(_FULL)]))
    text = yaml.safe_dump(_with(_FULL, path, "HERE")).replace("HERE", data.draw(_TAGS) + data.draw(_BODIES))
    directory = tmp_path_factory.mktemp("fuzz")
    (directory / "students.csv").write_text("id,email\nbob,bob@example.org\n")
    for problem in _found(directory, text)[1]:
        assert problem.line
        assert problem.wrong
        assert problem.mend


@given(st.binary(max_size=80) | st.text(alphabet='id,email\n"; a@.', max_size=60).map(lambda text: text.encode()))
@settings(max_examples=60)
def test_no_roster_whatever_makes_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    for head in (b"", b"id,email,name\n"):
        (directory / "students.csv").write_bytes(head + content)
        _, problems = _found(directory, "name: demo\nroster: students.csv\n")
        assert all(problem.line and problem.wrong and problem.mend for problem in problems)
