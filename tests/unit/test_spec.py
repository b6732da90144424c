"""Every mistake in a class file is answered with file, line, field, what is wrong and what would be right."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.spec import ClassFileError, ClassSpec, Gpu, OneMachine, Platform, amount, load

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
        b"x" * (2 << 20),
        (b"a: &a [" + b"x," * 9 + b"x]\n")
        + b"".join(b"%c: &%c [%s]\n" % (i + 1, i + 1, b",".join([b"*%c" % i] * 10)) for i in range(97, 105)),
    ],
)
def test_a_file_that_is_no_class_is_answered_and_not_stumbled_over(tmp_path: Path, content: bytes) -> None:
    assert _refusal(tmp_path, content).startswith("class.yaml")


@given(st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
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


def test_a_platform_without_what_reaches_it_is_told_field_by_field(tmp_path: Path) -> None:
    answer = _refusal(tmp_path, _LEAST + "platform: {kind: kubeflow, url: 'http://x'}\n")
    assert "platform.kubeconfig: is missing; write for example `kubeconfig: ~/.kube/config`" in answer
    assert "platform.url: 'http://x' is refused" in answer


@pytest.mark.parametrize(
    ("quantity", "number"),
    [("100m", 0.1), ("2", 2), ("1Ki", 1024), ("8Gi", 8 * 2**30), ("1.5Gi", 1.5 * 2**30), ("1G", 10**9)],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(quantity: str, number: float) -> None:
    assert float(amount(quantity)) == pytest.approx(number)


def test_the_quota_of_the_demo_holds_its_notebooks_and_a_run(demo: ClassSpec) -> None:
    for field, need in demo.needs().items():
        given = getattr(demo.quota, field)
        assert need <= (amount(given) if isinstance(given, str) else given)
