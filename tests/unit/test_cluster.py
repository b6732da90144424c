"""What the operator alone sees, and the student's own key at the object store, where nobody is reached."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra import cluster
from infra.spec import BucketSpec, ClassSpec, ObjectStore, Platform
from labs.runner import lab as labs
from labs.runner.clients.cluster import Cluster
from labs.runner.isolation.asks import Seat
from labs.runner.isolation.prove import AtWork
from labs.runner.verify import unseen

NOBODY: Any = None
AWS = ObjectStore(kind="aws", region="eu-central-1")


@pytest.fixture(autouse=True)
def _nobody_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "api", lambda *_: None)
    monkeypatch.setattr(cluster, "secret", lambda *_: {"accesskey": "k", "secretkey": "s"})


def _with(platform: Platform, store: ObjectStore) -> Platform:
    return platform.model_copy(update={"object_store": store})


@pytest.mark.parametrize(
    ("store", "region", "endpoint", "proxies"),
    [
        (AWS, None, "https://s3.eu-central-1.amazonaws.com", None),
        (AWS, "eu-west-1", "https://s3.eu-west-1.amazonaws.com", None),
        (ObjectStore(endpoint="https://s3.example.org"), "eu-west-1", "https://s3.example.org", None),
        # A bare address is never behind a proxy.
        (ObjectStore(endpoint="http://198.18.0.101:8333"), None, "http://198.18.0.101:8333", {}),
    ],
)
def test_a_students_bucket_is_looked_into_where_it_lies(
    platform: Platform, store: ObjectStore, region: str | None, endpoint: str, proxies: dict[str, str] | None
) -> None:
    client = Cluster(_with(platform, store), region).store("demo-alice")
    assert (client.meta.endpoint_url, client.meta.region_name) == (endpoint, region or store.region)
    assert client.meta.config.proxies == proxies


@pytest.mark.parametrize(("region", "asked"), [(None, "eu-central-1"), ("eu-west-1", "eu-west-1")])
def test_a_notebook_tries_the_others_buckets_where_they_lie(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, region: str | None, asked: str
) -> None:
    seat = Seat(student="alice", email="a@example.org", namespace="demo-alice", bucket="demo-alice", notebooks=("n",))
    student = AtWork(seat, _with(platform, AWS), NOBODY, None, BucketSpec(region=region))
    ran: list[str] = []

    def run(code: str) -> str:
        ran.append(code)
        return "[]"

    monkeypatch.setattr(student, "_run", run)
    assert student.tried({}) == {}
    assert f"'https://s3.{asked}.amazonaws.com', '{asked}'" in ran[0]


def test_the_secret_of_a_students_key_is_told_where_it_can_be_read(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Cluster(platform).bucket_secret("demo-alice")
    assert found
    assert found.get_secret_value() == "s"

    def none(*_: object) -> None:
        raise cluster.ClusterUnreachable("there is no Secret")

    monkeypatch.setattr(cluster, "secret", none)
    assert Cluster(platform).bucket_secret("demo-alice") is None


def test_a_node_that_has_only_just_come_counts_no_cores(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"spec": {}, "status": {"allocatable": {"cpu": "1500m"}}}, {"spec": {}}, {"spec": {}, "status": {}}]
    monkeypatch.setattr(cluster, "get", lambda *_: {"items": items})
    assert Cluster(platform).cores() == Decimal("1.5")


def test_who_is_not_seen_has_the_bucket_that_was_given_all_the_same(
    demo: ClassSpec, platform: Platform, tmp_path: Path
) -> None:
    file = tmp_path / "keys.csv"
    file.write_text("id,bucket,access_key,secret_key\nalice,team-a,K1,S1\n")
    file.chmod(0o600)
    store = ObjectStore(kind="given", endpoint="https://s3.example.org", keys_file=file)
    facts = unseen(demo, _with(platform, store), labs.load(demo.labs[0]), demo.students[0])
    assert facts.bucket == "team-a"
