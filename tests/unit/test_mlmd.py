"""gRPC-Web framing and the subset of ML Metadata's messages, on bytes that ML Metadata's own library (1.17.1) wrote."""

import struct

import pytest

from labs.runner import facts
from labs.runner.clients import mlmd

EXECUTIONS = bytes.fromhex(
    "0ab801080c100d18032a2c0a06696e70757473122222200a0e0a016112091100000000000008400a0e0a016212091100000000000008402a190a"
    "096e616d657370616365120c1a0a64656d6f2d616c6963652a220a076f757470757473121722150a130a064f7574707574120911000000000000"
    "22402a170a097461736b5f6e616d65120a1a086d756c7469706c79320672756e2f37663a1973797374656d2e436f6e7461696e65724578656375"
    "74696f6e40e807489a21520178"
)
ARTIFACTS = bytes.fromhex(
    "0a8d01080410021a4473333a2f2f64656d6f2d616c6963652f6172746966616374732f6d6174682d706970656c696e652f30612f6d756c746970"
    "6c792f31622f6578656375746f722d6c6f67732a1f0a0c646973706c61795f6e616d65120f1a0d6578656375746f722d6c6f677330023a0d6578"
    "656375746f722d6c6f6773420f73797374656d2e4172746966616374"
)
EVENTS = bytes.fromhex("0a1b0804100c1a110a0f120d6578656375746f722d6c6f677320042805")
CONTEXT = bytes.fromhex("0a1c0803100b1a023061321273797374656d2e506970656c696e6552756e")

GOOD = b"grpc-status: 0\r\ngrpc-message: \r\n"


def frame(flags: int, data: bytes) -> bytes:
    return struct.pack("!BI", flags, len(data)) + data


def answer(message: bytes) -> bytes:
    return frame(0, message) + frame(0x80, GOOD)


def test_a_message_comes_back_out_of_its_frame() -> None:
    assert mlmd.framed(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert mlmd.unframed(answer(b"abc")) == b"abc"


def test_an_empty_message_is_a_message() -> None:
    assert mlmd.unframed(answer(b"")) == b""


def test_the_trailers_error_is_raised_with_its_code_and_words() -> None:
    with pytest.raises(mlmd.MetadataError, match="no such context") as raised:
        mlmd.unframed(frame(0x80, b"grpc-status:5\r\ngrpc-message:no such context\r\n"))
    assert raised.value.code == 5


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "no message"),
        (b"\x00\x00", "cut"),
        (frame(0, b"abc")[:-1], "cut"),
        (b"<html>502 Bad Gateway</html>", "no gRPC-Web"),
        (frame(0x01, b"abc"), "compressed"),
        (frame(0x80, GOOD), "no message"),
    ],
)
def test_what_is_no_answer_is_named(body: bytes, told: str) -> None:
    with pytest.raises(mlmd.MetadataError, match=told):
        mlmd.unframed(body)


def test_a_run_is_read_with_what_its_tasks_took_and_made() -> None:
    answers = {
        "GetContextByTypeAndName": CONTEXT,
        "GetExecutionsByContext": EXECUTIONS,
        "GetArtifactsByContext": ARTIFACTS,
        "GetEventsByExecutionIDs": EVENTS,
    }
    asked: list[tuple[str, bytes]] = []

    def post(method: str, body: bytes) -> bytes:
        asked.append((method, body))
        return answer(answers[method])

    found = facts.tasks({"add": (), "multiply": ("add",)}, *mlmd.MetadataStore(post).run("0a"))

    assert [method for method, _ in asked] == list(answers)
    assert asked[0][1] == mlmd.framed(b"\n\x12system.PipelineRun\x12\x020a")
    add, multiply = found
    assert (add.name, add.outputs) == ("add", None)
    assert multiply == facts.TaskFacts(
        name="multiply",
        after=("add",),
        state="COMPLETE",
        seconds=3.25,
        execution=12,
        namespace="demo-alice",
        inputs={"a": 3.0, "b": 3.0},
        outputs={"Output": 9.0},
        artifacts=(
            facts.ArtifactFacts(
                name="executor-logs",
                type="system.Artifact",
                uri="s3://demo-alice/artifacts/math-pipeline/0a/multiply/1b/executor-logs",
                state="LIVE",
                event="OUTPUT",
                id=4,
                properties={"display_name": "executor-logs"},
            ),
        ),
    )


def execution(number: int, name: str, state: int, kind: str = "system.ContainerExecution") -> mlmd.Execution:
    properties = {"task_name": mlmd.Value(string_value=name)}
    return mlmd.Execution(id=number, last_known_state=state, custom_properties=properties, type_=kind)


def test_the_last_try_of_a_task_counts_and_graphs_are_no_tasks() -> None:
    tries = [execution(9, "add", 3), execution(7, "add", 4), execution(8, "", 2, "system.DAGExecution")]
    (add,) = facts.tasks({"add": ()}, tries, [], [])
    assert (add.execution, add.state, add.imports) == (9, "COMPLETE", False)


def test_an_importer_is_a_task_that_imports() -> None:
    found = facts.tasks({"importer": ()}, [execution(5, "importer", 3, "system.ImporterExecution")], [], [])
    assert [(task.name, task.execution, task.imports) for task in found] == [("importer", 5, True)]


def test_what_the_launcher_notes_about_the_object_store_is_no_property() -> None:
    notes = {"store_session_info": mlmd.Value(string_value="{}"), "rows": mlmd.Value(int_value=3)}
    made = mlmd.Artifact(id=1, uri="s3://b/x", custom_properties=notes, properties={"unit": mlmd.Value()})
    event = mlmd.Event(artifact_id=1, execution_id=2, type_=4)
    (task,) = facts.tasks({}, [execution(2, "add", 3)], [made], [event])
    assert task.artifacts[0].properties == {"rows": 3, "unit": None}


def test_the_root_of_a_run_stands_in_its_context() -> None:
    properties = {"pipeline_root": mlmd.Value(string_value="s3://demo-alice/artifacts/math-pipeline/0a")}
    context = mlmd.Context(id=3, name="0a", custom_properties=properties)
    known = mlmd.GetContextByTypeAndNameResponse.serialize(mlmd.GetContextByTypeAndNameResponse(context=context))
    assert mlmd.MetadataStore(lambda *_: answer(known)).pipeline_root("0a").endswith("math-pipeline/0a")
    assert mlmd.MetadataStore(lambda *_: answer(b"")).pipeline_root("0a") == ""


def test_a_run_that_the_store_does_not_know_left_nothing() -> None:
    assert mlmd.MetadataStore(lambda *_: answer(b"")).run("0a") == ([], [], [])
    gone = frame(0x80, b"grpc-status: 5\r\n")
    assert mlmd.MetadataStore(lambda *_: gone).run("0a") == ([], [], [])


def test_an_enum_that_is_newer_than_this_file_shows_its_number() -> None:
    assert mlmd.named(mlmd.EXECUTION_STATES, 3) == "COMPLETE"
    assert mlmd.named(mlmd.EXECUTION_STATES, 42) == "42"
