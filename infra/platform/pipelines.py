"""Kubeflow Pipelines, multi-user: the API server with a door before it (pipelines_door.py), and the two agents that
watch runs and start recurring ones.

The API server believes whoever names a user in its identity header, and a pipeline's own pods must reach its gRPC port,
student code included. So the header's name is a secret between the gateway and the API server: a pod that writes
"kubeflow-userid: somebody" says nothing.
"""

import json
from pathlib import Path

import pulumi

from infra.platform import database, object_store
from infra.platform.database import Database
from infra.platform.manifests import definitions
from infra.platform.metadata import PIPELINE_POD
from infra.platform.network_policy import allow, peer
from infra.platform.object_store import ObjectStore
from infra.platform.rights import ALL, READ, WRITE, Rule, account
from infra.platform.routes import Routes, Target
from infra.platform.settings import GATEWAY, PlatformSettings
from infra.platform.volumes import STORAGE_CLASS
from infra.platform.workload import (
    Container,
    Pod,
    Ready,
    SecretKey,
    config_map,
    configuration,
    deployment,
    secrets,
    service,
    service_account_token,
    temporary,
)

HOST = "ml-pipeline"
HTTP_PORT = 8888
GRPC_PORT = 8887
"""The door's; the API server's own is open to nobody but it."""
BUCKET = "mlpipeline"
RUNNER = "default-editor"
"""The ServiceAccount of a namespace that its runs use."""
AUDIENCE = "pipelines.kubeflow.org"
_DOOR = "pipelines-door"
_DOOR_FILES = tuple(Path(__file__).with_name(name) for name in ("pipelines_door.py", "seat_callers.py"))
_BEHIND_GRPC_PORT, _LOG_PORT = 8886, 8889
_TOKENS = "/var/run/secrets/kubeflow/tokens"
_QUERIES_PER_SECOND, _BURST = 100, 200
"""For the Kubernetes API. Upstream's 5 makes a class wait, and loses runs: the agent may report a run's workflow before
the API server has come to write the run down."""


def _config() -> str:
    workspace = {"accessModes": ["ReadWriteOnce"], "storageClassName": STORAGE_CLASS}
    return json.dumps(
        {
            "DBDriverName": "mysql",
            "DBConfig": {
                "MySQLConfig": {
                    "User": database.USER,
                    "Host": database.HOST,
                    "Port": str(database.PORT),
                    "DBName": database.NAME,
                    "GroupConcatMaxLen": "4194304",
                },
                "PostgreSQLConfig": {"DBName": database.NAME},
                "ConMaxLifeTime": "120s",
            },
            "ObjectStoreConfig": {
                "Host": object_store.HOST,
                "Port": str(object_store.PORT),
                "Region": object_store.REGION,
                "Secure": False,
                "BucketName": BUCKET,
                "PipelinePath": "pipelines",
            },
            "ARCHIVE_CONFIG_LOG_FILE_NAME": "main.log",
            "ARCHIVE_CONFIG_LOG_PATH_PREFIX": "/artifacts",
            "InitConnectionTimeout": "6m",
            "DEFAULTPIPELINERUNNERSERVICEACCOUNT": RUNNER,
            "CacheEnabled": "true",
            "CRON_SCHEDULE_TIMEZONE": "UTC",
            "CACHE_IMAGE": "busybox",
            "CACHE_NODE_RESTRICTIONS": "false",
            "ClientQPS": _QUERIES_PER_SECOND,
            "ClientBurst": _BURST,
            "Workspace": {"VolumeClaimTemplateSpec": workspace},
        }
    )


class Pipelines(pulumi.ComponentResource):
    """The pipelines service, and its routes at the gateway: /pipeline/ (as the SDK has it) and /apis/."""

    def __init__(
        self,
        name: str,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        database: Database,
        store: ObjectStore,
        workflow_definitions: list[pulumi.Resource],
        identity_header: pulumi.Output[str],
        routes: Routes,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("classroom:platform:Pipelines", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        known = definitions(settings.upstream("kfp"), mine, leave_out=("viewers.kubeflow.org",))
        after = pulumi.ResourceOptions(parent=self, depends_on=[*known, *workflow_definitions])
        secrets("ml-pipeline-identity", namespace, {"header": identity_header}, mine)
        self._api_server(settings, namespace, database, store, identity_header, mine)
        self._persistence_agent(settings, namespace, mine, after)
        self._scheduled_workflows(settings, namespace, mine, after)
        self._routes(namespace, identity_header, routes)
        self.register_outputs({})

    def _api_server(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        database_: Database,
        store: ObjectStore,
        identity_header: pulumi.Output[str],
        mine: pulumi.ResourceOptions,
    ) -> None:
        rules = (
            Rule(group="", resources=("pods", "pods/log"), verbs=("get", "list", "delete")),
            # The door asks whose address calls.
            Rule(group="", resources=("namespaces", "nodes"), verbs=("get", "list")),
            Rule(group="argoproj.io", resources=("workflows",), verbs=ALL),
            Rule(group="kubeflow.org", resources=("scheduledworkflows",), verbs=("get", "list", *WRITE)),
            Rule(group="kubeflow.org", resources=("scheduledworkflows/finalizers",), verbs=("update",)),
            Rule(group="pipelines.kubeflow.org", resources=("pipelines",), verbs=READ),
            Rule(group="authorization.k8s.io", resources=("subjectaccessreviews",), verbs=("create",)),
            Rule(group="authentication.k8s.io", resources=("tokenreviews",), verbs=("create",)),
        )
        who = account("ml-pipeline", namespace, mine, everywhere=rules)
        config = _config()
        configuration("ml-pipeline-config", namespace, {"config.json": config}, mine)
        sources = {file.name: file.read_text() for file in _DOOR_FILES}
        configuration(_DOOR, namespace, sources, mine)
        driver, launcher = settings.program("kfp-driver"), settings.program("kfp-launcher")
        # The API server ends when the store does not answer at once; waiting here saves a restart and its back-off.
        before = _wait(settings, (object_store.HOST, object_store.PORT), (database.HOST, database.PORT))
        deployment(
            Pod(
                app=HOST,
                account=who,
                restart_on=[config, identity_header, *sources.values()],
                stop_seconds=10,
                before=[before],
                containers=[
                    Container(
                        name="ml-pipeline-api-server",
                        program=settings.program("kfp-apiserver"),
                        arguments=[
                            "--config=/config",
                            "--sampleconfig=",
                            f"--rpcPortFlag=:{_BEHIND_GRPC_PORT}",
                            "-logtostderr=true",
                            "--logLevel=info",
                        ],
                        environment={
                            "MULTIUSER": "true",
                            "KUBEFLOW_USERID_PREFIX": "",
                            "PUBLISH_LOGS": "true",
                            "AUTO_UPDATE_PIPELINE_DEFAULT_VERSION": "true",
                            "V2_DRIVER_IMAGE": driver.image,
                            "V2_DRIVER_COMMAND": driver.command[0],
                            "V2_LAUNCHER_IMAGE": launcher.image,
                            "V2_LAUNCHER_COMMAND": launcher.command[0],
                            # Nothing answers there; without a value the server does not start.
                            "ML_PIPELINE_VISUALIZATIONSERVER_SERVICE_HOST": "localhost",
                            "ML_PIPELINE_VISUALIZATIONSERVER_SERVICE_PORT": "8888",
                        },
                        secret_environment={
                            "DBCONFIG_MYSQLCONFIG_PASSWORD": database_.password,
                            "OBJECTSTORECONFIG_ACCESSKEY": store.access_key,
                            "OBJECTSTORECONFIG_SECRETACCESSKEY": store.secret_key,
                            "KUBEFLOW_USERID_HEADER": SecretKey(of="ml-pipeline-identity", key="header"),
                        },
                        field_environment={"POD_NAMESPACE": "metadata.namespace"},
                        ports={"http": HTTP_PORT},
                        ready=Ready(port=HTTP_PORT, path="/apis/v1beta1/healthz"),
                        mounts=[config_map("ml-pipeline-config", "/config"), temporary()],
                        millicores=30,
                        memory_mebibytes=96,
                        go_memory_mebibytes=256,
                    ),
                    Container(
                        name=_DOOR,
                        program=settings.program("mlmd", "python3"),
                        arguments=["-u", f"/srv/{_DOOR_FILES[0].name}", namespace],
                        secret_environment={
                            "KUBEFLOW_USERID_HEADER": SecretKey(of="ml-pipeline-identity", key="header")
                        },
                        ports={"grpc": GRPC_PORT, "log": _LOG_PORT},
                        ready=Ready(port=_LOG_PORT, path="/ready"),
                        mounts=[config_map(_DOOR, "/srv"), temporary()],
                        memory_mebibytes=48,
                    ),
                ],
            ),
            namespace,
            mine,
        )
        service(HOST, namespace, HOST, {"http": HTTP_PORT, "grpc": GRPC_PORT, "log": _LOG_PORT}, mine)
        own = [peer(app="ml-pipeline-persistenceagent"), peer(app="ml-pipeline-scheduledworkflow")]
        allow(
            HOST,
            namespace,
            [
                ([peer(namespace=GATEWAY, app="traefik"), *own], [HTTP_PORT]),
                ([peer(namespace=GATEWAY, app="traefik")], [_LOG_PORT]),
                ([peer(namespace="*", labels=PIPELINE_POD), *own], [GRPC_PORT]),
            ],
            mine,
        )

    def _routes(self, namespace: pulumi.Output[str], identity_header: pulumi.Output[str], routes: Routes) -> None:
        login = routes.login("pipelines-login", namespace, self, headers=["kubeflow-groups", identity_header])
        strip_session = routes.strip_session("pipelines-strip-session", namespace, self)
        strip_prefix = routes.strip_prefix("pipelines-strip-prefix", namespace, "/pipeline", self)
        target = Target(service=HOST, port=HTTP_PORT)
        routes.route(
            "pipelines", namespace, "PathPrefix(`/pipeline/`)", [login, strip_session, strip_prefix], target, self
        )
        # For clients whose host is the gateway itself.
        routes.route("pipelines-apis", namespace, "PathPrefix(`/apis/`)", [login, strip_session], target, self)
        # Here KFP asks for no right of its own; see pipelines_door.py.
        door = namespace.apply(lambda name: f"http://{HOST}.{name}.svc.cluster.local:{_LOG_PORT}/")
        asked = routes.ask("pipelines-log", namespace, door, [identity_header], self)
        unguarded = "apis/v1alpha1/"
        routes.route(
            "pipelines-unguarded",
            namespace,
            f"PathPrefix(`/pipeline/{unguarded}`)",
            [login, strip_session, asked, strip_prefix],
            target,
            self,
        )
        routes.route(
            "pipelines-apis-unguarded",
            namespace,
            f"PathPrefix(`/{unguarded}`)",
            [login, strip_session, asked],
            target,
            self,
        )

    def _persistence_agent(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        mine: pulumi.ResourceOptions,
        after: pulumi.ResourceOptions,
    ) -> None:
        rules = (
            Rule(group="argoproj.io", resources=("workflows",), verbs=READ),
            Rule(group="kubeflow.org", resources=("scheduledworkflows",), verbs=READ),
            Rule(group="pipelines.kubeflow.org", resources=("scheduledworkflows", "workflows"), verbs=("report",)),
            Rule(group="pipelines.kubeflow.org", resources=("runs",), verbs=("reportMetrics", "readArtifact")),
        )
        app = "ml-pipeline-persistenceagent"
        arguments = [
            "--logtostderr=true",
            "--namespace=",
            f"--mlPipelineAPIServerName={HOST}",
            "--ttlSecondsAfterWorkflowFinish=86400",
            "--numWorker=2",
            f"--clientQPS={_QUERIES_PER_SECOND}",
            f"--clientBurst={_BURST}",
        ]
        container = Container(
            name=app,
            program=settings.program("kfp-persistence-agent"),
            arguments=arguments,
            mounts=[service_account_token(_TOKENS, "persistenceagent-sa-token", AUDIENCE), temporary()],
            go_memory_mebibytes=96,
        )
        who = account(app, namespace, mine, everywhere=rules)
        deployment(
            Pod(app=app, account=who, before=[_wait(settings, (HOST, HTTP_PORT))], containers=[container]),
            namespace,
            after,
        )

    def _scheduled_workflows(
        self,
        settings: PlatformSettings,
        namespace: pulumi.Output[str],
        mine: pulumi.ResourceOptions,
        after: pulumi.ResourceOptions,
    ) -> None:
        rules = (
            Rule(group="argoproj.io", resources=("workflows",), verbs=ALL),
            Rule(group="pipelines.kubeflow.org", resources=("runs",), verbs=("create",)),
            Rule(group="kubeflow.org", resources=("scheduledworkflows", "scheduledworkflows/finalizers"), verbs=ALL),
            Rule(group="", resources=("events",), verbs=("create", "patch")),
        )
        app = "ml-pipeline-scheduledworkflow"
        arguments = [
            "--logtostderr=true",
            "--namespace=",
            f"--mlPipelineAPIServerName={HOST}",
            f"--clientQPS={_QUERIES_PER_SECOND}",
            f"--clientBurst={_BURST}",
        ]
        container = Container(
            name=app,
            program=settings.program("kfp-scheduledworkflow"),
            arguments=arguments,
            environment={"CRON_SCHEDULE_TIMEZONE": "UTC"},
            mounts=[service_account_token(_TOKENS, "scheduledworkflow-sa-token", AUDIENCE), temporary()],
            go_memory_mebibytes=96,
        )
        who = account(app, namespace, mine, everywhere=rules)
        deployment(
            Pod(app=app, account=who, before=[_wait(settings, (HOST, HTTP_PORT))], containers=[container]),
            namespace,
            after,
        )


def _wait(settings: PlatformSettings, *servers: tuple[str, int]) -> Container:
    """Until these answer: who needs them ends when they do not, and is restarted ever more slowly."""
    # bash opens the connections itself; a static busybox in a bare image cannot look names up.
    opened = " && ".join(f"(: </dev/tcp/{host}/{port})" for host, port in servers)
    script = f"until {opened}; do sleep 0.2; done 2>/dev/null"
    return Container(name="wait", program=settings.program("debian", "bash"), arguments=["-c", script])
