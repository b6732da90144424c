"""The command line: three verbs for a class, and those for the one-machine platform.

What went wrong is one message that ends with how to mend it.
Exit codes: 0 all proven · 1 something is wrong with the class · 2 the call was wrong · 3 something was not checked ·
130 stopped.
"""

import errno
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import click
from rich.console import Console

from infra import class_file
from infra.class_file import load
from infra.failure import Failure
from infra.spec import ClassSpec, Platform
from infra.steps import Cancelled

# verbs is imported where it is needed: it brings Pulumi, for which a mistake in the class file should not wait.

console = Console()

_ClassFile = click.argument(
    "spec",
    metavar="CLASS.yaml",
    type=click.Path(path_type=Path),
    callback=lambda _context, _parameter, file: load(file),
)

_Language = click.option(
    "--lang", "language", type=click.Choice(["en", "ko"]), default="en", help="The language of notebooks and report."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def classroom() -> None:
    """Stand up, rehearse and take down a Kubeflow class."""


@classroom.command()
@click.option("--platform", type=click.Choice(["one-machine", "kubeflow"]), default="one-machine")
def init(platform: Literal["one-machine", "kubeflow"]) -> None:
    """Print a commented class file with every field there is."""
    click.echo(class_file.example(platform), nl=False)


@classroom.command()
def schema() -> None:
    """Print the JSON schema of class files, for editors."""
    click.echo(json.dumps(class_file.schema(), indent=2))


@classroom.group()
def platform() -> None:
    """The embedded default: a real Kubeflow on this machine."""


@platform.command("up")
def platform_up() -> None:
    """Build what is missing, start the node, stand up Kubeflow's parts."""
    from scripts import verbs

    console.print(f"Kubeflow answers at {verbs.platform_up(console).url}")


@platform.command("status")
def platform_status() -> None:
    """Say what of the platform stands; exit code 1 unless all of it does."""
    from infra import one_machine

    found = one_machine.status()
    for name, stands in found.items():
        console.print(f"{'yes' if stands else 'no':<4} {name}", highlight=False, soft_wrap=True)
    sys.exit(0 if all(found.values()) else 1)


@platform.command("down")
@click.option("--purge", is_flag=True, help="Empty the cache of built tools and images as well.")
def platform_down(purge: bool) -> None:
    """Take away processes, mounts, network namespace, cgroups and data."""
    from scripts import verbs

    verbs.platform_down(console, purge=purge)


@classroom.command()
@_ClassFile
@_Language
@click.option("--force", is_flag=True, help="Go on although it does not fit: the cluster will grow, say.")
@click.option("--lose-files", is_flag=True, help="Delete workspaces whose notebooks were taken out of the class file.")
def up(spec: ClassSpec, language: Literal["en", "ko"], force: bool, lose_files: bool) -> None:
    """Stand up every student's environment, put the labs there and print the logins, on a terminal with passwords.

    A seat that fails keeps no other one from being made: what failed is told below the logins of those that are ready.
    """
    from infra.stacks import SeatsFailed
    from scripts import verbs

    try:
        handout = verbs.up(spec, _reached(spec), console, language=language, force=force, lose_files=lose_files)
    except SeatsFailed as failed:
        if failed.standing:
            console.print(verbs.logins(failed.standing, console), markup=False, highlight=False, soft_wrap=True)
        raise
    console.print(verbs.logins(handout, console), markup=False, highlight=False, soft_wrap=True)


@classroom.command()
@_ClassFile
def preview(spec: ClassSpec) -> None:
    """Say what `up` would change: who joins, what restarts, what is lost."""
    from scripts import verbs

    for line in verbs.preview(spec, _reached(spec), console) or ("nothing changes",):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@classroom.command()
@_ClassFile
@click.argument("student")
@_Language
@click.option("--no-rehearsal", is_flag=True, help="Print the login as soon as the doors open; run no lab before.")
def add(spec: ClassSpec, student: str, language: Literal["en", "ko"], no_rehearsal: bool) -> None:
    """Stand up the seat of one STUDENT, who is in the class file already, run the first lab in it as the student, and
    print the login when all of it works; no other seat is touched."""
    from scripts import verbs

    added = verbs.add(spec, _reached(spec), student, console, language=language, rehearse=not no_rehearsal)
    rehearsed = [lab.lab for lab in added.result.labs] if added.result else []
    if added.result and added.result.exit_code:
        console.print(verbs.matrix(added.result, language))
        console.print(f"report: {added.directory / 'report.html'}", soft_wrap=True)
        wrong = "does not all work" if added.result.exit_code == 1 else "could not all be checked"
        mend = "mend what is told above and run this again for the login, or with --no-rehearsal to have it at once"
        said = f"error: {student}'s seat stands, but {', '.join(rehearsed)} {wrong} in it; {mend}"
        console.print(said, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(added.result.exit_code)
    console.print(verbs.login(added.seat, console=console), markup=False, highlight=False, soft_wrap=True)
    if left := [name for name in spec.labs if name not in rehearsed]:
        labs = " ".join(f"--lab {name}" for name in left)
        how = f"scripts/classroom verify CLASS.yaml --student {student} {labs}"
        console.print(
            f"not rehearsed: {', '.join(left)}; `{how}` does it", markup=False, highlight=False, soft_wrap=True
        )


@classroom.command()
@_ClassFile
@click.argument("student")
def remove(spec: ClassSpec, student: str) -> None:
    """Take away the seat of one STUDENT, who is not in the class file any more, with all its work; prove it."""
    from scripts import verbs

    certificate, file = verbs.remove(spec, _reached(spec), student, console)
    console.print(certificate.text(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"certificate: {file}", soft_wrap=True)
    sys.exit(certificate.exit_code)


@classroom.command()
@_ClassFile
@click.argument("student")
@click.option("--keep-workspace/--wipe", "keep", default=True, help="Keep files and bucket (so unless said otherwise).")
@_Language
def repair(spec: ClassSpec, student: str, keep: bool, language: Literal["en", "ko"]) -> None:
    """Rebuild the seat of one STUDENT; the login stays, and no other seat is touched."""
    from infra import stores
    from scripts import verbs

    reached = _reached(spec)
    seat = verbs.repair(spec, reached, student, console, wipe=not keep, language=language)
    if keep:
        kept = "files, bucket and login are the old ones"
    elif left := stores.connect(stores.StoreAddress.of(reached)).leaves:
        kept = f"workspaces are new, the login is the old; {left}"
    else:
        kept = "workspaces and bucket are new, the login is the old"
    console.print(f"{seat.id}'s seat is rebuilt; {kept}", markup=False, highlight=False, soft_wrap=True)


@classroom.command()
@_ClassFile
@click.option("--student", "students", multiple=True, metavar="ID", help="Only this student; may be given again.")
@click.option("--lab", "lessons", multiple=True, metavar="NAME", help="Only this lab; may be given again.")
@click.option("--step", metavar="ID", help="Do what leads up to this step, and judge it alone.")
@click.option("--own", is_flag=True, help="Rehearse a copy of the student's own notebook instead of the lab's.")
@click.option("--keep", is_flag=True, help="Keep what the rehearsal makes until the next one, for a look at it.")
@click.option("--watch", is_flag=True, help="Run nothing; show where each student stands until Ctrl-C.")
@_Language
def verify(
    spec: ClassSpec,
    students: tuple[str, ...],
    lessons: tuple[str, ...],
    step: str | None,
    own: bool,
    keep: bool,
    watch: bool,
    language: Literal["en", "ko"],
) -> None:
    """Run every lab as every student in the student's own notebook and show what works."""
    if watch and (step or own or keep):
        raise click.UsageError("--watch runs nothing, so --step, --own and --keep say nothing to it; leave them out")
    from labs.runner.verify import Scope
    from scripts import verbs

    scope = Scope(students=students, lessons=lessons, step=step)
    # What was named is looked for before the cluster is asked.
    scope.chosen(spec)
    reached = _reached(spec)
    if watch:
        result, directory = verbs.watch(spec, reached, console, scope, language)
    else:
        result, directory = verbs.verify(spec, reached, console, scope, language=language, own=own, keep=keep)
    console.print(verbs.matrix(result, language))
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    sys.exit(result.exit_code)


@classroom.command()
@_ClassFile
def isolation(spec: ClassSpec) -> None:
    """Prove that no student reaches another's anything: every pair, every door, from where a student sits."""
    from scripts import verbs

    result, directory = verbs.isolation(spec, _reached(spec), console)
    console.print(verbs.doors(result))
    console.print(f"report: {directory / 'isolation.html'}", soft_wrap=True)
    sys.exit(result.exit_code)


@classroom.command()
@_ClassFile
def down(spec: ClassSpec) -> None:
    """Take everything of the class away and prove it with a certificate."""
    from scripts import verbs

    certificate, file = verbs.down(spec, _reached(spec), console)
    console.print(certificate.text(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"certificate: {file}", soft_wrap=True)
    sys.exit(certificate.exit_code)


@classroom.command()
@_ClassFile
def preflight(spec: ClassSpec) -> None:
    """Say whether the class and its labs' runs fit the quotas and the cluster; nothing is made."""
    from scripts import day

    found = day.fitted(spec, _reached(spec))
    console.print(day.fit_table(found))
    sys.exit(1 if found.shortages else 3 if found.notes else 0)


@classroom.command()
@_ClassFile
@_Language
@click.option("--rotate", is_flag=True, help="Give new passwords.")
@click.option("--student", "students", multiple=True, metavar="ID", help="Rotate only this one's; may be given again.")
def handout(spec: ClassSpec, language: Literal["en", "ko"], rotate: bool, students: tuple[str, ...]) -> None:
    """Write a page for each student, with login and QR code, and a list for the teacher."""
    if students and not rotate:
        raise click.UsageError("--student says whose password --rotate changes; add --rotate, or leave it out")
    known = [student.id for student in spec.students]
    if strangers := [each for each in students if each not in known]:
        raise click.UsageError(
            f"there is no student {strangers[0]!r} in class {spec.name}; there are: {', '.join(known)}"
        )
    from scripts import handout as pages
    from scripts import verbs

    changed = students or tuple(known) if rotate else ()
    directory = verbs.handout(spec, _reached(spec), console, language=language, new_passwords=tuple(changed))
    console.print(f"pages to print: {directory / pages.ALL_PAGES}   list: {directory / pages.LIST}", soft_wrap=True)


@classroom.command()
@_ClassFile
def status(spec: ClassSpec) -> None:
    """Show each seat: notebooks, quota used, last activity, last login, spend so far."""
    # Not verbs, which brings Pulumi: the screen is to be there at once.
    from infra.status import status as look
    from scripts import day

    # The screen tells times in the time zone of its `now`.
    zone = ZoneInfo(spec.session.time_zone) if spec.session else UTC
    console.print(day.status_table(look(spec, _reached(spec)), datetime.now(zone)))


@classroom.command()
@_ClassFile
def close(spec: ClassSpec) -> None:
    """Close the class now: logins, sessions, keys and notebooks; all data stay. `open` undoes it."""
    from scripts import day

    day.close(spec, _reached(spec))
    console.print(f"class {spec.name} is closed; `classroom open` opens it again")


@classroom.command("open")
@_ClassFile
def reopen(spec: ClassSpec) -> None:
    """Open a class again that was closed by `close` or by the end of its session."""
    from scripts import day

    day.reopen(spec, _reached(spec))
    console.print(f"class {spec.name} is open; notebooks that were stopped by its end start again")


@classroom.command("bill")
@_ClassFile
@click.option("--csv", "file", type=click.Path(path_type=Path), help="Write every line to this file.")
def spent(spec: ClassSpec, file: Path | None) -> None:
    """Say what each seat has cost so far, by the prices of the class file."""
    if spec.prices is None:
        raise click.UsageError("the class file names no prices; write them under `prices`")
    from infra.bill import bill

    made = bill(spec, _reached(spec))
    if made is None:
        return
    console.print(made.text(), markup=False, highlight=False, soft_wrap=True)
    if file:
        file.write_text(made.csv())


def _reached(spec: ClassSpec) -> Platform:
    # Not at the top: it brings the Kubernetes client, for which a mistake in the class file should not wait.
    from infra.one_machine import platform_of

    return platform_of(spec)


def answered(command: Callable[[], None]) -> None:
    """Run a command and end the process with an exit code instead of a traceback for whatever a person can mend."""
    # A polite kill ends in the same good order as Ctrl-C: compilers, Pulumi and kernels are ended with us. Ctrl-C is
    # named too, because a shell starts what is in its background deaf to it.
    for polite in (signal.SIGINT, signal.SIGTERM):
        signal.signal(polite, signal.default_int_handler)
    try:
        command()
    except (KeyboardInterrupt, click.exceptions.Abort):
        console.print("stopped; the same command goes on from here")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except Cancelled as error:
        console.print(str(error), markup=False)
        sys.exit(130)
    except Failure as failure:
        console.print(f"error: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(failure.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        mend = "free some disk or name a writable folder (CLASSROOM_CACHE, CLASSROOM_STATE), then run this again"
        console.print(f"error: {where}{error.strerror}; {mend}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    answered(lambda: classroom(standalone_mode=False))
