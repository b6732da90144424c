"""The database of runs, experiments and pipelines: MariaDB, which speaks MySQL, on a volume of its own."""

import pulumi

from infra.platform.generated import Token
from infra.platform.network_policy import allow, peer
from infra.platform.settings import PlatformSettings
from infra.platform.workload import (
    Container,
    Pod,
    Ready,
    SecretKey,
    claim,
    config_map,
    configuration,
    deployment,
    secret,
    secrets,
    service,
    temporary,
    volume_claim,
)

HOST = "mysql"
PORT = 3306
USER = "mlpipeline"
NAME = "mlpipeline"
_UID = 999

_START = """set -eu
data=/var/lib/mysql/data
if [ ! -d "$data/mysql" ]; then
    rm -rf "$data" "$data.new"
    mariadb-install-db --no-defaults --datadir="$data.new" --skip-test-db \
        --auth-root-authentication-method=normal >/dev/null
    mv "$data.new" "$data"
fi
exec mariadbd --no-defaults --datadir="$data" --socket=/tmp/mysqld.sock --pid-file=/tmp/mysqld.pid \
    --bind-address=0.0.0.0 --skip-name-resolve --log-warnings=1 --init-file=/etc/mysql-init/init.sql \
    --character-set-server=utf8mb4 --max-connections=200 \
    --innodb-buffer-pool-size=96M --innodb-log-file-size=32M --innodb-flush-log-at-trx-commit=2 --performance-schema=OFF
"""

# Runs at every start. Root has no password while the database is made, when nobody can reach it; then it is locked.
_INIT = """ALTER USER 'root'@'localhost' ACCOUNT LOCK;
CREATE DATABASE IF NOT EXISTS {name};
CREATE USER IF NOT EXISTS '{user}'@'%';
ALTER USER '{user}'@'%' IDENTIFIED BY '{password}';
GRANT ALL PRIVILEGES ON `{name}`.* TO '{user}'@'%';
"""


class Database(pulumi.ComponentResource):
    """MariaDB with one database and one user, whose password is in `password`."""

    password: SecretKey

    def __init__(
        self, name: str, settings: PlatformSettings, namespace: pulumi.Output[str], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("classroom:platform:Database", name, None, opts)
        mine = pulumi.ResourceOptions(parent=self)
        token = Token("database-password", mine)
        init = token.value.apply(lambda password: _INIT.format(name=NAME, user=USER, password=password))
        secrets("mysql-secret", namespace, {"username": USER, "password": token.value}, mine)
        secrets("mysql-init", namespace, {"init.sql": init}, mine)
        configuration("mysql-start", namespace, {"start.sh": _START}, mine)
        volume_claim("mysql", namespace, settings.database_gibibytes, mine)
        deployment(
            Pod(
                app="mysql",
                restart_on=[_START, init],
                volume_group=_UID,
                stop_seconds=30,
                containers=[
                    Container(
                        name="mariadb",
                        program=settings.program("mariadb", "sh"),
                        arguments=["/etc/mysql-start/start.sh"],
                        ports={"mysql": PORT},
                        ready=Ready(port=PORT),
                        mounts=[
                            claim("mysql", "/var/lib/mysql"),
                            secret("mysql-init", "/etc/mysql-init"),
                            config_map("mysql-start", "/etc/mysql-start"),
                            temporary(),
                        ],
                        user=_UID,
                        millicores=20,
                        memory_mebibytes=160,
                    )
                ],
            ),
            namespace,
            mine,
        )
        service(HOST, namespace, "mysql", {"mysql": PORT}, mine)
        allow("mysql", namespace, [([peer(app="ml-pipeline")], [PORT])], mine)
        self.password = SecretKey(of="mysql-secret", key="password")
        self.register_outputs({})
