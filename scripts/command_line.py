"""The command line: three verbs for a class, and those for the one-machine platform.

What went wrong is one message that ends with how to mend it.
Exit codes: 0 all proven · 1 something is wrong with the class · 2 the call was wrong · 3 something was not checked ·
130 stopped.
"""

import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def classroom() -> None:
    """Stand up, rehearse and take down a Kubeflow class."""


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
def up(spec: ClassSpec) -> None:
    """Stand up every student's environment and print the logins."""
    from scripts import verbs

    handout = verbs.up(spec, verbs.reached(spec), console)
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
def verify(spec: ClassSpec) -> None:
    """Run every lab as every student in the student's own notebook and show what works."""
    from scripts import verbs

    result, directory = verbs.verify(spec, verbs.reached(spec), console)
    console.print(verbs.matrix(result))
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
