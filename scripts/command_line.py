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
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from infra import class_file
from infra.failure import Failure
from infra.spec import ClassSpec, load
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
def up(spec: ClassSpec, language: Literal["en", "ko"]) -> None:
    """Stand up every student's environment, put the labs there and print the logins."""
    from scripts import verbs

    handout = verbs.up(spec, verbs.reached(spec), console, language=language)
    console.print(verbs.logins(handout), markup=False, highlight=False, soft_wrap=True)


@classroom.command()
@_ClassFile
def preview(spec: ClassSpec) -> None:
    """Say what `up` would change."""
    from scripts import verbs

    changes = verbs.preview(spec, verbs.reached(spec), console)
    console.print(
        f"{changes.created} to make, {changes.updated} to change, {changes.replaced} to replace, "
        f"{changes.deleted} to delete"
    )


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
    reached = verbs.reached(spec)
    if watch:
        result, directory = verbs.watch(spec, reached, console, scope, language)
    else:
        result, directory = verbs.verify(spec, reached, console, scope, language=language, own=own, keep=keep)
    console.print(verbs.matrix(result, language))
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    sys.exit(result.exit_code)


@classroom.command()
@_ClassFile
def down(spec: ClassSpec) -> None:
    """Take everything of the class away and prove it with a certificate."""
    from scripts import verbs

    certificate, file = verbs.down(spec, verbs.reached(spec), console)
    console.print(certificate.text(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"certificate: {file}", soft_wrap=True)
    sys.exit(certificate.exit_code)


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
