"""A student's seat as a lab finds it: where the student works, and the way in."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from infra import naming
from infra.spec import ClassSpec, Platform, Student
from infra.stores import StoreAddress
from labs.runner import lab as labs
from labs.runner.clients.jupyter import NotebookServer
from labs.runner.clients.session import GatewaySession

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a student works, and the way in. Runs write below the folder `artifacts` of the bucket."""

    student: Student
    namespace: str
    bucket: str
    artifacts: str
    image: str
    session: GatewaySession
    password: SecretStr
    bucket_secret: SecretStr | None = None
    """Of the student's key to the bucket, where it is known: a student's own notebook may print it."""

    def clean(self, text: str) -> str:
        """The text without any secret of this student, should one have come into it, and without control characters."""
        key = (self.bucket_secret.get_secret_value(),) if self.bucket_secret else ()
        for secret in (*self.session.secrets(), *key):
            text = text.replace(secret, "•••")
        return _CONTROL.sub("", text)

    def rendered(self, lab: labs.Lab, language: labs.Language) -> dict[str, Any]:
        """The lab's notebook for this student."""
        host = f"{self.session.url}/"
        return labs.render(lab, host=host, email=self.student.email, image=self.image, language=language)

    def server(self, lab: labs.Lab) -> NotebookServer:
        """The notebook server that the lab is done in."""
        return NotebookServer(self.session, f"/notebook/{self.namespace}/{lab.notebook.server}")


def seat_of(
    spec: ClassSpec,
    platform: Platform,
    lesson: labs.Lab,
    student: Student,
    session: GatewaySession,
    password: SecretStr,
) -> Seat:
    """Where a student of the class does a lab."""
    image = next(n.image for n in spec.of(student).notebooks if n.name == lesson.notebook.server)
    return Seat(
        student=student,
        namespace=naming.namespace(spec.name, student.id),
        bucket=StoreAddress.of(platform).holding(spec.name, student.id).bucket,
        artifacts=spec.bucket.artifacts,
        image=image or platform.notebook_image,
        session=session,
        password=password,
    )


def fitting(spec: ClassSpec, lesson: labs.Lab) -> labs.Lab:
    """The lab, when the class has the notebook server that it works in. Errors: `labs.LabError`."""
    if lesson.notebook.server not in {notebook.name for notebook in spec.notebooks}:
        raise labs.LabError(
            f"the lab {lesson.name} works in {lesson.notebook.server}, which the class does not have; "
            f"add `- name: {lesson.notebook.server}` to its notebooks, or take {lesson.name} out of its labs"
        )
    return lesson
