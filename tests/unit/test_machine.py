"""Is the machine fit, is it free: decided on facts, told in one clear message each."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from infra.local import machine
from infra.local.machine import GIBIBYTE, Busy, CommandError, Facts, Unfit, call, lock, problems
from infra.local.places import Places, places, write_whole
from infra.steps import Cancelled

FIT = Facts(
    user_id=0,
    system="Linux",
    architecture="x86_64",
    cgroup_controllers=frozenset({"cpu", "cpuset", "memory", "pids", "io"}),
    free_disk_bytes=30 * GIBIBYTE,
    free_memory_bytes=8 * GIBIBYTE,
    has_package_manager=True,
    missing_commands=frozenset({"containerd"}),
)


def test_a_fit_machine_has_no_problems_even_when_packages_are_missing() -> None:
    assert problems(FIT, disk_gibibytes=25) == ()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(FIT, user_id=1000), "not root"),
        (replace(FIT, system="Darwin"), "Linux on x86-64"),
        (replace(FIT, architecture="aarch64"), "Linux on x86-64"),
        (replace(FIT, cgroup_controllers=frozenset({"cpu", "cpuset", "pids"})), "controllers memory are off"),
        (replace(FIT, free_disk_bytes=24 * GIBIBYTE), "24.0 GiB of disk are free, 25 GiB are needed"),
        (replace(FIT, free_memory_bytes=GIBIBYTE), "1.0 GiB of memory are free, 6 GiB are needed"),
        (replace(FIT, has_package_manager=False), "containerd missing"),
    ],
)
def test_each_lack_is_one_problem_in_one_line(facts: Facts, said: str) -> None:
    (problem,) = problems(facts, disk_gibibytes=25)
    assert said in problem
    assert "\n" not in problem


def test_all_problems_are_told_at_once() -> None:
    assert len(problems(replace(FIT, user_id=1, free_disk_bytes=0, free_memory_bytes=0), disk_gibibytes=25)) == 3


def test_a_second_command_is_told_what_the_first_is_doing(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with (
        lock("platform up", file),
        pytest.raises(Busy, match=rf"platform up \(process {os.getpid()}"),
        lock("demo", file),
    ):
        pass
    with lock("demo", file):
        assert file.read_text().startswith("demo")


def test_a_lock_that_cannot_be_opened_is_told_as_the_file_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unfit, match=r"none/demo\.lock: No such file or directory: make it yours to write"):
        lock("verify", tmp_path / "none" / "demo.lock").__enter__()
    monkeypatch.setattr(machine, "LOCK_FILE", tmp_path / "run.lock")
    # Nobody, not even root, opens a folder to write.
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(Unfit, match="the one-machine platform needs root on Linux"):
        lock("platform up", machine.LOCK_FILE).__enter__()


def test_the_lock_of_a_killed_command_falls(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    script = (
        "import pathlib, sys, time\nfrom infra.local.machine import lock\n"
        "with lock('first', pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Busy), lock("second", file):
            pass
        first.kill()
        first.wait()
    with lock("second", file):
        pass


def test_a_failing_program_is_told_with_its_last_lines() -> None:
    with pytest.raises(CommandError, match="ended with exit code 3:\nit broke"):
        call(["sh", "-c", "echo it broke >&2; exit 3"])


def test_a_registry_that_does_not_answer_is_named_as_the_cause() -> None:
    with pytest.raises(CommandError, match="A package registry did not answer"):
        call(["sh", "-c", "echo 'Temporary failure resolving example' >&2; exit 100"])


def test_a_cancelled_program_is_ended_with_its_children(tmp_path: Path) -> None:
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        call(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; wait"], cancelled=cancelled)
    assert time.monotonic() - began < 10
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_a_program_reads_and_prints_passes_through() -> None:
    assert call(["cat"], text="one\ntwo\n", cancelled=threading.Event()) == "one\ntwo\n"


def test_the_platforms_own_networks_are_not_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "address": '[{"ifname":"eth0","addr_info":[{"local":"10.1.2.3","prefixlen":24}]},'
        '{"ifname":"own","addr_info":[{"local":"198.18.0.1","prefixlen":24}]}]',
        "route": '[{"dst":"default","dev":"eth0"},{"dst":"172.17.0.0/16","dev":"docker0"},'
        '{"dst":"10.9.9.9","dev":"tun0"},'
        '{"dst":"198.18.0.0/24","dev":"own"},{"type":"blackhole","dst":"198.18.0.0/15"},'
        '{"type":"blackhole","dst":"9.0.0.0/8"}]',
    }
    monkeypatch.setattr(machine, "call", lambda command: answers[command[3]])
    uses = machine.networks_in_use(frozenset({"own"}), IPv4Network("198.18.0.0/15"))
    assert [(str(use.network), use.where) for use in uses] == [
        ("10.1.2.0/24", "network of eth0"),
        ("172.17.0.0/16", "route through docker0"),
        ("10.9.9.9/32", "route through tun0"),
        ("9.0.0.0/8", "blackhole route"),
    ]


@pytest.mark.parametrize(
    ("environment", "cache", "state"),
    [
        ({"HOME": "/h"}, "/h/.cache/kubeflow-classroom", "/h/.local/state/kubeflow-classroom"),
        (
            {"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"},
            "/c/kubeflow-classroom",
            "/s/kubeflow-classroom",
        ),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c", "CLASSROOM_CACHE": "/x", "CLASSROOM_STATE": "/y"}, "/x", "/y"),
    ],
)
def test_places_follow_the_settings(environment: dict[str, str], cache: str, state: str) -> None:
    found: Places = places(environment)
    assert (str(found.cache), str(found.state)) == (cache, state)


@pytest.mark.parametrize("missing", [frozenset(), frozenset({"zstd"})])
def test_what_holds_services_back_does_not_outlive_the_next_command(
    missing: frozenset[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    held: list[int] = []
    monkeypatch.setattr(machine, "_POLICY", policy)
    monkeypatch.setattr(machine, "missing_commands", lambda: missing)
    monkeypatch.setattr(machine, "call", lambda *_, **__: held.append(subprocess.run([policy], check=False).returncode))
    policy.write_text(f"#!/bin/sh\n{machine._POLICY_MARK}\nexit 101\n")

    machine.install_packages()

    assert held == [101] * len(missing)
    assert not policy.exists()


def test_an_owners_word_on_services_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    monkeypatch.setattr(machine, "_POLICY", policy)
    monkeypatch.setattr(machine, "missing_commands", lambda: frozenset({"zstd"}))
    monkeypatch.setattr(machine, "call", lambda *_, **__: "")

    machine.install_packages()

    assert policy.read_text() == "#!/bin/sh\nexit 101\n"


def test_a_file_that_is_trusted_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "made" / "kubeflow.json"
    write_whole(file, "first")
    with pytest.raises(UnicodeEncodeError):
        # Cut off in the middle: half a character cannot be encoded.
        write_whole(file, "second \ud800")
    assert file.read_text() == "first"
