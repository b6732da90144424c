"""The one description of a class: what its file may say, with defaults, and what goes together and what does not."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from infra.values import (
    REGION,
    STORE_ADDRESS,
    Cpu,
    Email,
    File,
    Folder,
    HostName,
    LabelKey,
    LabelValue,
    LabName,
    Memory,
    Moment,
    NotebookName,
    ObjectName,
    Price,
    ShortName,
    StoreUrl,
    TimeZone,
    Variable,
    amount,
    gibibytes,
    mistake,
    nearest,
    written,
)

# What one pod of a pipeline is counted with: `main` and Argo's `wait` side by side, each with the default limit.
_CONTAINERS_PER_PIPELINE_POD: Final = 2
_PIPELINE_PODS: Final = 5
_GPU: Final = "nvidia.com/gpu"


class _Part(BaseModel):
    # What stands below a field is its description, in the JSON schema and in the file that `classroom init` writes.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def example(cls, field: str) -> str:
        """A field with its example, as a class file has it in one line."""
        return written(field, (cls.model_fields[field].examples or [""])[0])


class Student(_Part):
    """Who sits in a seat."""

    id: ShortName = Field(examples=["alice"])
    """Part of every name, such as the namespace's: lower-case letters, digits and inner dashes."""
    email: Email = Field(examples=["alice@example.org"])
    """The login. Passwords are generated."""
    name: str = Field(default="", max_length=200, examples=["Alice Example"])
    """How the student is called where people read it."""


class Gpu(_Part):
    """GPUs of one resource name, as a device plugin offers them."""

    resource: str = Field(
        default=_GPU,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        max_length=120,
        examples=["nvidia.com/gpu"],
    )
    """The device plugin's name for it, for example nvidia.com/mig-1g.10gb."""
    count: int = Field(default=1, ge=1, le=64, examples=[1])
    """How many of them."""


class Toleration(_Part):
    """A taint of nodes in spite of which a notebook may be put there, as Kubernetes has it."""

    key: LabelKey | None = Field(default=None, examples=["nvidia.com/gpu"])
    """The taint's key; left out with `operator: Exists` it stands for every taint."""
    operator: Literal["Equal", "Exists"] = Field(default="Equal", examples=["Exists"])
    """Whether the taint's value has to be equal as well."""
    value: LabelValue | None = Field(default=None, examples=["present"])
    """The taint's value, for `operator: Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(default=None, examples=["NoSchedule"])
    """The taint's effect; left out it stands for each."""

    @model_validator(mode="after")
    def _fits_its_operator(self) -> Self:
        if self.operator == "Equal" and self.key is None:
            raise mistake("is a toleration without a key", "write its `key`, or `operator: Exists`", at=("key",))
        if self.operator == "Exists" and self.value is not None:
            raise mistake(
                "is not looked at with `operator: Exists`", "take it away, or write `operator: Equal`", at=("value",)
            )
        return self


class NotebookSettings(_Part):
    """What a notebook server runs, and with how much of what."""

    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        pattern=r"^\S+$",
        examples=["kubeflownotebookswg/jupyter-scipy:v1.9.2"],
    )
    """The container image. Left out: the class image of the platform."""
    cpu: Cpu = Field(default="2", examples=["2"])
    """The cpu cores that it is promised."""
    cpu_limit: Cpu | None = Field(default=None, examples=["2"])
    """The most cpu cores that it may use. Left out: what it is promised."""
    memory: Memory = Field(default="8Gi", examples=["8Gi"])
    """The memory that it is promised."""
    memory_limit: Memory | None = Field(default=None, examples=["8Gi"])
    """The most memory that it may use. Left out: what it is promised."""
    gpu: Gpu | None = Field(default=None, examples=[{"resource": "nvidia.com/gpu", "count": 1}])
    """Its GPUs. Left out: none."""
    workspace: Memory = Field(default="10Gi", examples=["10Gi"])
    """The size of its workspace volume, `<notebook>-volume`. An existing one does not shrink."""
    shared_memory: Memory | None = Field(default=None, examples=["1Gi"])
    """The most of its memory that processes may share (/dev/shm). Left out: no bound but its memory limit."""
    environment: dict[Variable, str] = Field(default={}, examples=[{"OMP_NUM_THREADS": "2"}])
    """Environment variables; no place for secrets."""
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, examples=[{"kubernetes.io/arch": "amd64"}])
    """Labels that a node must have for this notebook to be put there."""
    tolerations: tuple[Toleration, ...] = Field(
        default=(), examples=[[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]]
    )
    """Taints of nodes that do not keep it away: `key`, `operator` (Equal or Exists), `value`, `effect`."""

    @property
    def most_cpu(self) -> str:
        """The cpu limit in force."""
        return self.cpu_limit or self.cpu

    @property
    def most_memory(self) -> str:
        """The memory limit in force."""
        return self.memory_limit or self.memory


class NotebookSpec(NotebookSettings):
    """A notebook server that every student has."""

    name: NotebookName = Field(examples=["cpu-notebook"])
    """Its name; labs say by it where they are done."""

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> Self:
        for name, request, limit in (("cpu", self.cpu, self.most_cpu), ("memory", self.memory, self.most_memory)):
            if amount(limit) < amount(request):
                raise mistake(
                    f"{name}_limit {limit} is less than {name} {request}", f"write {name}_limit: {request} or more"
                )
        if self.shared_memory and amount(self.shared_memory) > amount(self.most_memory):
            raise mistake(
                f"shared_memory {self.shared_memory} is more than the memory limit {self.most_memory}, of which it is "
                "a part",
                f"write shared_memory: {self.most_memory} or less",
            )
        return self


class Quota(_Part):
    """What a seat may use at once: all notebooks, and a pipeline run of five pods beside them, have to fit."""

    cpu: Cpu = Field(default="8", examples=["8"])
    """Bounds the cpu cores that pods ask for."""
    memory: Memory = Field(default="32Gi", examples=["32Gi"])
    """Bounds the memory that pods may reach."""
    gpus: int = Field(default=0, ge=0, le=1000, examples=[0])
    """GPUs for pipelines, besides the notebooks' own: of nvidia.com/gpu and of each resource that notebooks name."""
    pods: int = Field(default=30, ge=1, le=10_000, examples=[30])
    """Bounds the pods."""
    volumes: int = Field(default=10, ge=1, le=1000, examples=[10])
    """Bounds the volumes, workspaces among them."""
    storage: Memory = Field(default="100Gi", examples=["100Gi"])
    """Bounds the size of all volumes together."""
    container_cpu: Cpu = Field(default="50m", examples=["50m"])
    """The cpu cores that a container is promised when it names none."""
    container_memory: Memory = Field(default="64Mi", examples=["64Mi"])
    """The memory that a container is promised when it names none."""
    container_memory_limit: Memory = Field(default="1Gi", examples=["1Gi"])
    """The most memory of a container that names none."""


class Override(_Part):
    """What is otherwise in one student's seat; whatever is not named is as in the class."""

    notebooks: dict[str, NotebookSettings] = Field(default={}, examples=[{"gpu-notebook": {"memory": "16Gi"}}])
    """By the notebook's name: the settings that differ."""
    quota: Quota = Field(default=Quota(), examples=[{"memory": "48Gi"}])
    """The bounds that differ."""


class BucketSpec(_Part):
    """The student's own bucket."""

    artifacts: Folder = Field(default="artifacts", max_length=200, examples=["artifacts"])
    """Runs write below this folder."""
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,40}$", examples=["us-east-1"])
    """Where the bucket lies; it cannot be moved. Left out: the object store's region."""
    versioning: bool = Field(default=False, strict=True, examples=[True])
    """Whether what is overwritten or deleted is kept as an older version."""
    lifecycle_days: int | None = Field(default=None, ge=1, le=3650, strict=True, examples=[30])
    """Objects, older versions and unfinished uploads are deleted after so many days. Left out: never."""

    @property
    def as_the_store_has_it(self) -> bool:
        """Whether nothing is to be set on the bucket itself."""
        return self.region is None and not self.versioning and self.lifecycle_days is None


class Tls(_Part):
    """The certificate that the gateway shows for the host name.

    `self-signed`: one is made, and browsers warn of it. `files`: `certificate_file` and `key_file`, in PEM. `secret`:
    the name of a Secret of type kubernetes.io/tls in the gateway's namespace. `cert-manager`: the `issuer` signs it.
    """

    kind: Literal["self-signed", "files", "secret", "cert-manager"] = Field(examples=["self-signed"])
    """Where the certificate comes from."""
    certificate_file: File | None = Field(default=None, examples=["gateway.crt"])
    """For `files`: the certificate, followed by those that signed it, in PEM."""
    key_file: File | None = Field(default=None, examples=["gateway.key"])
    """For `files`: the private key, in PEM."""
    secret: ObjectName | None = Field(default=None, examples=["gateway-tls"])
    """For `secret`: its name."""
    issuer: ObjectName | None = Field(default=None, examples=["letsencrypt"])
    """For `cert-manager`: the issuer's name."""
    issuer_kind: Literal["ClusterIssuer", "Issuer"] = Field(default="ClusterIssuer", examples=["ClusterIssuer"])
    """For `cert-manager`: an Issuer lies in the gateway's namespace."""

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        of_kind = {"files": ("certificate_file", "key_file"), "secret": ("secret",), "cert-manager": ("issuer",)}
        for kind, fields in of_kind.items():
            for field in fields:
                if self.kind == kind and getattr(self, field) is None:
                    mend = f"write for example `{self.example(field)}`"
                    raise mistake(f"is missing, which `kind: {kind}` needs", mend, at=(field,))
                if self.kind != kind and getattr(self, field) is not None:
                    raise mistake(
                        f"is not looked at with `kind: {self.kind}`",
                        f"take it away, or write `kind: {kind}`",
                        at=(field,),
                    )
        return self


class AccessSpec(_Part):
    """Under which name students reach the class."""

    host: HostName | None = Field(default=None, examples=["class.example.org"])
    """A host name that leads to the gateway. Left out: the address of the platform."""
    tls: Tls | None = Field(default=None, examples=[{"kind": "cert-manager", "issuer": "letsencrypt"}])
    """The certificate for that name: `kind` is self-signed, files (certificate_file, key_file), secret (its name, in
    the gateway's namespace) or cert-manager (issuer, issuer_kind). With Istio a server of the platform's own Gateway
    has to name it; `up` says how. Left out: the one that the gateway has."""

    @model_validator(mode="after")
    def _certifies_a_name(self) -> Self:
        if self.tls and not self.host:
            raise mistake("says nothing without a host name", "write `host: class.example.org` beside it", at=("tls",))
        return self


class Session(_Part):
    """When the class is held. It stands on each student's namespace in UTC, where a clock needs no class file."""

    start: Moment = Field(examples=["2026-12-01 09:00"])
    """When it begins."""
    end: Moment = Field(examples=["2026-12-01 17:00"])
    """When it ends."""
    time_zone: TimeZone = Field(default="UTC", examples=["Asia/Seoul"])
    """The IANA time zone of a time that names no offset from UTC itself."""

    @property
    def starts_at(self) -> datetime:
        """The beginning, in UTC."""
        return self._in_utc(self.start)

    @property
    def ends_at(self) -> datetime:
        """The end, in UTC."""
        return self._in_utc(self.end)

    def _in_utc(self, moment: datetime) -> datetime:
        placed = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(self.time_zone))
        return placed.astimezone(UTC)

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.ends_at <= self.starts_at:
            raise mistake("is not after the start", f"write an end after {self.start:%Y-%m-%d %H:%M}", at=("end",))
        return self


class Prices(_Part):
    """What the bill is reckoned with."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", examples=["USD"])
    """Its code in ISO 4217."""
    cpu_core_hour: Price = Field(default=Decimal(0), examples=[0.04])
    """Of one cpu core for an hour."""
    memory_gibibyte_hour: Price = Field(default=Decimal(0), examples=[0.005])
    """Of one GiB of memory for an hour."""
    gpu_hour: dict[str, Price] = Field(default={}, examples=[{"nvidia.com/gpu": 1.2}])
    """Of one GPU for an hour, by the name of its resource."""
    storage_gibibyte_month: Price = Field(default=Decimal(0), examples=[0.1])
    """Of one GiB in volumes and bucket for a month of 730 hours."""


class ObjectStore(_Part):
    """The S3 object store that has the students' buckets, and how this program comes to make them.

    No key is in the class file: the operator's is in a Secret of the cluster, with boto3, or in a file of its own.
    """

    kind: Literal["seaweedfs", "minio", "aws", "given"] = Field(default="seaweedfs", examples=["aws"])
    """`seaweedfs` and `minio`: with the operator's key from a Secret. `aws`: S3 and IAM, with the credentials that
    boto3 finds where you type. `given`: any S3, whose buckets and keys somebody else has made and takes away."""
    region: str = Field(default="us-east-1", pattern=REGION, examples=["us-east-1"])
    """The region that requests are signed for."""
    endpoint: StoreUrl = Field(default="", examples=["https://s3.example.org"])
    """Its address from where you type. Of `aws` it is known."""
    endpoint_in_cluster: StoreUrl = Field(default="", examples=["http://seaweedfs.kubeflow:8333"])
    """Its address from a pod. Left out: http://seaweedfs.kubeflow:8333 or http://minio-service.kubeflow:9000, of the
    other kinds `endpoint`."""
    secret: str = Field(default="mlpipeline-minio-artifact", min_length=1, examples=["mlpipeline-minio-artifact"])
    """The Secret in Kubeflow's namespace with the operator's key. For `aws` only the end of a `session` looks for it,
    to switch keys off, and only where it is written here; left out, the pod's own role does that."""
    access_key_field: str = Field(default="accesskey", min_length=1, examples=["accesskey"])
    """The Secret's field with the key's name."""
    secret_key_field: str = Field(default="secretkey", min_length=1, examples=["secretkey"])
    """The Secret's field with the key itself."""
    keys_file: File | None = Field(default=None, examples=["keys.csv"])
    """For `given`: a CSV file with the columns id (the student's), bucket, access_key and secret_key, readable by its
    owner alone."""

    @property
    def path_style(self) -> bool:
        """Whether a bucket is a folder of the address; of AWS it is a host name below it."""
        return self.kind != "aws"

    def address(self, region: str) -> str:
        """Where pods find the buckets of a region: AWS has an address for each."""
        return _aws(region) if self.kind == "aws" else self.endpoint_in_cluster

    @model_validator(mode="before")
    @classmethod
    def _has_the_addresses_of_its_kind(cls, told: object) -> object:
        if not isinstance(told, Mapping):
            return told
        known: dict[str, Any] = {}
        match told.get("kind", "seaweedfs"):
            case "seaweedfs":
                known = {"endpoint_in_cluster": "http://seaweedfs.kubeflow:8333"}
            case "minio":
                known = {"endpoint_in_cluster": "http://minio-service.kubeflow:9000"}
            case "given" if re.fullmatch(STORE_ADDRESS, str(told.get("endpoint"))):
                known = {"endpoint_in_cluster": told["endpoint"]}
            case "aws":
                for field in ("endpoint", "endpoint_in_cluster"):
                    if field in told:
                        mend = "take it away; `region` says where it is"
                        raise mistake("is not looked at with `kind: aws`", mend, at=(field,))
                # One that is none is told of as such, and by itself.
                region = str(told.get("region"))
                fitting = region if re.fullmatch(REGION, region) else "us-east-1"
                known = dict.fromkeys(("endpoint", "endpoint_in_cluster"), _aws(fitting))
        return {**known, **told}

    @model_validator(mode="after")
    def _is_told_what_its_kind_needs(self) -> Self:
        for field, needed in (("endpoint", True), ("keys_file", self.kind == "given")):
            if needed and not getattr(self, field):
                mend = f"write for example `{self.example(field)}`"
                raise mistake(f"is missing, which `kind: {self.kind}` needs", mend, at=(field,))
        if self.keys_file and self.kind != "given":
            mend = "take it away, or write `kind: given`"
            raise mistake(f"is not looked at with `kind: {self.kind}`", mend, at=("keys_file",))
        return self


def _aws(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


class Gateway(_Part):
    """What lets students in at the edge of the cluster, and how it tells who they are."""

    kind: Literal["traefik", "istio"] = Field(default="traefik", examples=["istio"])
    """`traefik`, as on the one-machine platform, or `istio`, as Kubeflow's own manifests have it."""
    session_cookie: str = Field(
        default="oauth2_proxy_kubeflow", pattern=r"^[A-Za-z0-9_-]+$", max_length=100, examples=["authservice_session"]
    )
    """The cookie that keeps a login, `cookie_name` of oauth2-proxy; no notebook server is shown it."""
    user_header: str = Field(
        default="kubeflow-userid", pattern=r"^[A-Za-z0-9-]+$", max_length=100, examples=["kubeflow-userid"]
    )
    """For `istio`: the header that names the user, Kubeflow's USERID_HEADER."""
    user_prefix: str = Field(default="", pattern=r"^[^*\s]*$", max_length=200, examples=["accounts.google.com:"])
    """For `istio`: what stands before the e-mail in it, Kubeflow's USERID_PREFIX."""
    principal: str = Field(
        default="cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account",
        pattern=r"^[a-z0-9.-]+/ns/[a-z0-9-]+/sa/[a-z0-9.-]+$",
        max_length=500,
        examples=["cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"],
    )
    """For `istio`: who the ingress gateway is in the mesh."""
    selector: dict[LabelKey, LabelValue] = Field(
        default={"istio": "ingressgateway"}, min_length=1, examples=[{"istio": "ingressgateway"}]
    )
    """For `istio`: the labels of the ingress gateway's pods."""
    notebook_routes: Literal["notebook-controller", "class"] = Field(default="notebook-controller", examples=["class"])
    """For `istio`: who makes the notebooks' routes. Kubeflow's notebook controller does, unless its USE_ISTIO is
    false."""
    resource: str = Field(
        default="kubeflow/kubeflow-gateway",
        pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$",
        max_length=320,
        examples=["kubeflow/kubeflow-gateway"],
    )
    """For `istio`: the Gateway, as namespace/name, that the routes of Kubeflow hang on."""

    @model_validator(mode="after")
    def _says_nothing_of_another_kind(self) -> Self:
        # A prefix alone misleads nobody, and `classroom init` shows its example whatever the kind.
        for field in sorted(self.model_fields_set - {"kind", "session_cookie", "user_prefix"}):
            if self.kind != "istio" and getattr(self, field) != type(self).model_fields[field].default:
                raise mistake(
                    f"is not looked at with `kind: {self.kind}`", "take it away, or write `kind: istio`", at=(field,)
                )
        return self


class Platform(_Part):
    """How a Kubeflow that stands is reached. A class file with `kind: kubeflow` writes it out."""

    kind: Literal["one-machine", "kubeflow"] = Field(default="kubeflow", examples=["kubeflow"])
    """`kubeflow`: one that stands already."""
    kubeconfig: File = Field(examples=["~/.kube/config"])
    """A cluster administrator's kubeconfig."""
    context: str | None = Field(default=None, examples=["my-cluster"])
    """The context in it. Left out: its current one."""
    url: str = Field(pattern=r"^https://[^/\s]+/$", examples=["https://kubeflow.example.org/"])
    """The login page; Kubeflow Pipelines answers below it at /pipeline/."""
    ca_file: File | None = Field(default=None, examples=["gateway-ca.crt"])
    """The gateway's certificate authority, in PEM, where no public one signed it."""
    kubeflow_namespace: ShortName = Field(default="kubeflow", examples=["kubeflow"])
    """Where Kubeflow's own parts run."""
    dex_namespace: ShortName = Field(default="auth", examples=["auth"])
    """Where dex keeps its users; with Traefik, where oauth2-proxy runs as well."""
    gateway_namespace: ShortName = Field(default="gateway", examples=["gateway"])
    """Where the gateway runs; Istio's mostly in istio-system."""
    gateway: Gateway = Field(default=Gateway(), examples=[{"kind": "istio"}])
    """What lets students in: Traefik, or Istio's ingress gateway."""
    object_store: ObjectStore = Field(examples=[{"endpoint": "https://s3.example.org"}])
    """The S3 store that has the students' buckets."""
    api_server_cidrs: tuple[str, ...] = Field(min_length=1, examples=[["192.0.2.10/32"]])
    """Where pods find the Kubernetes API."""
    notebook_image: str = Field(min_length=1, examples=["kubeflownotebookswg/jupyter-scipy:v1.9.2"])
    """The class image: JupyterLab, kfp and ipykernel."""
    volume_directory: File | None = Field(default=None, examples=["/opt/local-path-provisioner"])
    """Where on this machine volumes lie, so that `down` can look whether they are gone. Left out: it cannot."""

    @model_validator(mode="after")
    def _names_the_namespace_of_istio(self) -> Self:
        if self.gateway.kind == "istio" and "gateway_namespace" not in self.model_fields_set:
            raise mistake(
                "is missing, which `gateway.kind: istio` needs",
                "write for example `gateway_namespace: istio-system`",
                at=("gateway_namespace",),
            )
        return self


class OneMachine(_Part):
    """The Kubeflow that `classroom platform up` makes on this machine; how it is reached is known once it stands."""

    kind: Literal["one-machine"] = Field(default="one-machine", examples=["one-machine"])
    """`one-machine`, or `kubeflow` and how yours is reached."""


def _platform_kind(value: object) -> str | None:
    if isinstance(value, OneMachine):
        return "one-machine"
    if isinstance(value, Platform):
        return "kubeflow"
    if isinstance(value, Mapping):
        kind = value.get("kind", "one-machine")
        return kind if isinstance(kind, str) else None
    return None


PlatformChoice = Annotated[
    Annotated[OneMachine, Tag("one-machine")] | Annotated[Platform, Tag("kubeflow")],
    Discriminator(
        _platform_kind,
        custom_error_type="mistake",
        custom_error_message="is not a platform",
        custom_error_context={"mend": "write `kind: one-machine` or `kind: kubeflow` below it"},
    ),
]

_REFERENCE_NOTEBOOKS: Final = (NotebookSpec(name="cpu-notebook"), NotebookSpec(name="gpu-notebook", gpu=Gpu()))


class ClassSpec(_Part):
    """A class: who learns, in which notebooks, within which limits, what is taught, and on which Kubeflow."""

    name: ShortName = Field(examples=["demo"])
    """Part of every name (namespace demo-alice, bucket demo-alice): lower-case letters, digits and inner dashes."""
    students: tuple[Student, ...] = Field(
        min_length=1, examples=[[{"id": "alice", "email": "alice@example.org", "name": "Alice Example"}]]
    )
    """Who learns. With a `roster`, those besides; then it may be left out."""
    roster: File | None = Field(default=None, examples=["students.csv"])
    """A CSV file of students with the columns id, email and, if you like, name."""
    notebooks: tuple[NotebookSpec, ...] = Field(
        default=_REFERENCE_NOTEBOOKS, min_length=1, examples=[[{"name": "cpu-notebook"}]]
    )
    """Each student's notebook servers."""
    idle_minutes: int | None = Field(default=None, ge=1, le=10_080, strict=True, examples=[60])
    """Kernels and terminals that do nothing for so long are ended, open in a browser or not, and give memory and GPU
    back; files and server stay. Left out: never."""
    quota: Quota = Field(default=Quota(), examples=[{"cpu": "8", "memory": "32Gi"}])
    """What one student may use at once."""
    overrides: dict[str, Override] = Field(
        default={},
        examples=[{"alice": {"quota": {"memory": "48Gi"}, "notebooks": {"gpu-notebook": {"memory": "16Gi"}}}}],
    )
    """By a student's id: notebooks' settings and quota that differ from the class's."""
    bucket: BucketSpec = Field(default=BucketSpec(), examples=[{"artifacts": "artifacts"}])
    """Each student's own bucket."""
    labs: tuple[LabName, ...] = Field(default=("simple_pipeline",), examples=[["simple_pipeline"]])
    """What is taught: folders below labs/."""
    session: Session | None = Field(default=None)
    """When the class is held. Left out: until `classroom down`."""
    access: AccessSpec = Field(default=AccessSpec(), examples=[{"host": "class.example.org"}])
    """Under which name students reach the class."""
    prices: Prices | None = Field(default=None)
    """What the bill is reckoned with. Left out: no bill."""
    tenancy: Literal["namespace", "profile"] = Field(default="namespace", examples=["namespace"])
    """`namespace`: the program fills each student's namespace itself. `profile`: Kubeflow's profile controller does."""
    platform: PlatformChoice = Field(default=OneMachine(), examples=[{"kind": "one-machine"}])
    """The Kubeflow that `classroom platform up` makes on this machine, or one that stands already."""

    def of(self, student: Student) -> "ClassSpec":
        """The class as one student has it: with the notebooks and the quota that are this student's."""
        override = self.overrides.get(student.id)
        if override is None:
            return self
        notebooks = tuple(_overridden(NotebookSpec, each, override.notebooks.get(each.name)) for each in self.notebooks)
        return self.model_copy(update={"notebooks": notebooks, "quota": _overridden(Quota, self.quota, override.quota)})

    def address(self, platform: Platform) -> str:
        """Where students find the class: an https address that ends with a slash."""
        return f"https://{self.access.host}/" if self.access.host else platform.url

    def gpus(self) -> dict[str, int]:
        """GPUs a seat may hold, by resource name: nvidia.com/gpu and what its notebooks name."""
        # What is not counted is not bounded, so the resource that most device plugins offer always is.
        held = {_GPU: 0}
        for notebook in self.notebooks:
            if notebook.gpu:
                held[notebook.gpu.resource] = held.get(notebook.gpu.resource, 0) + notebook.gpu.count
        return {resource: count + self.quota.gpus for resource, count in held.items()}

    def needs(self) -> Mapping[str, Decimal]:
        """What all notebooks of a seat and one pipeline run need at once, by the name of the quota's field."""
        quota = self.quota
        containers = _PIPELINE_PODS * _CONTAINERS_PER_PIPELINE_POD
        return {
            "cpu": sum((amount(n.cpu) for n in self.notebooks), Decimal()) + containers * amount(quota.container_cpu),
            "memory": sum((amount(n.most_memory) for n in self.notebooks), Decimal())
            + containers * amount(quota.container_memory_limit),
            "pods": Decimal(len(self.notebooks) + _PIPELINE_PODS),
            "volumes": Decimal(len(self.notebooks)),
            "storage": sum((amount(n.workspace) for n in self.notebooks), Decimal()),
        }

    @model_validator(mode="after")
    def _nobody_twice(self) -> Self:
        _refuse_twice("students", [student.id for student in self.students], "id")
        _refuse_twice("students", [student.email for student in self.students], "email")
        _refuse_twice("notebooks", [notebook.name for notebook in self.notebooks], "name")
        _refuse_twice("labs", list(self.labs), "")
        return self

    @model_validator(mode="after")
    def _overrides_are_of_somebody_and_something(self) -> Self:
        students = {student.id for student in self.students}
        notebooks = {notebook.name: notebook for notebook in self.notebooks}
        for student, override in self.overrides.items():
            if student not in students:
                # Mostly a student who has left the class; otherwise the id is misspelt.
                mend = f"take the override away, or name a student of the class; {nearest(student, students)}"
                raise mistake("is no student of the class", mend, at=("overrides", student))
            for name, settings in override.notebooks.items():
                at = ("overrides", student, "notebooks", name)
                if name not in notebooks:
                    raise mistake("is no notebook of the class", nearest(name, notebooks), at=at)
                try:
                    _overridden(NotebookSpec, notebooks[name], settings)
                except ValidationError as error:
                    context = error.errors(include_url=False)[0].get("ctx", {})
                    raise mistake(str(context.get("wrong")), str(context.get("mend")), at=at) from None
        return self

    @model_validator(mode="after")
    def _quota_holds_the_class(self) -> Self:
        _refuse_small(self, ("quota",))
        for student in self.students:
            if student.id in self.overrides:
                _refuse_small(self.of(student), ("overrides", student.id, "quota"))
        return self

    @model_validator(mode="after")
    def _given_buckets_stay_as_they_are(self) -> Self:
        given = isinstance(self.platform, Platform) and self.platform.object_store.kind == "given"
        if given and not self.bucket.as_the_store_has_it:
            raise mistake(
                "sets region, versioning or lifecycle_days of buckets that were given",
                "take them away here, and set them where the buckets are made",
                at=("bucket",),
            )
        return self

    @model_validator(mode="after")
    def _somebody_makes_profiles(self) -> Self:
        if self.tenancy == "profile" and isinstance(self.platform, OneMachine):
            raise mistake(
                "profile needs Kubeflow's profile controller, which the one-machine platform does not have",
                "write `tenancy: namespace`, or name another Kubeflow under `platform`",
                at=("tenancy",),
            )
        return self


_Settings = TypeVar("_Settings", bound=BaseModel)


def _overridden(model: type[_Settings], settings: _Settings, override: BaseModel | None) -> _Settings:
    """Settings with those in place that the override names. Errors: `ValidationError` when they do not go together."""
    if override is None:
        return settings
    named = {field: getattr(override, field) for field in override.model_fields_set}
    return model.model_validate({**dict(settings), **named})


def _refuse_small(spec: ClassSpec, at: tuple[str, ...]) -> None:
    """Refuse a quota that does not hold what its seat needs."""
    quota = spec.quota
    if amount(quota.container_memory_limit) < amount(quota.container_memory):
        raise mistake(
            f"container_memory_limit {quota.container_memory_limit} is less than {quota.container_memory}",
            f"write container_memory_limit: {quota.container_memory} or more",
            at=at,
        )
    for field, need in spec.needs().items():
        given = getattr(quota, field)
        if (amount(given) if isinstance(given, str) else given) < need:
            right = gibibytes(need) if field in ("memory", "storage") else f"{need.normalize():f}"
            raise mistake(
                f"{given} does not hold all notebooks of a seat and a pipeline run beside them",
                f"write {field}: {right} or more",
                at=(*at, field),
            )


def _refuse_twice(field: str, values: list[str], key: str) -> None:
    first: dict[str, int] = {}
    for i, value in enumerate(values):
        if value in first:
            raise mistake(
                f"{value!r} is given twice, first as number {first[value] + 1} of {field}",
                f"give number {i + 1} another {key}" if key else "take one of the two away",
                at=(field, i, key) if key else (field, i),
            )
        first[value] = i
