"""What a seat has in an object store, kind by kind: IAM and S3 as moto has them, MinIO's administration over HTTP."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from minio import MinioAdmin
from minio.credentials import StaticProvider
from moto import mock_aws
from moto.core import enable_iam_authentication

from infra import naming
from infra.bucket import _BucketProvider
from infra.spec import ObjectStore, Platform
from infra.stores import (
    ForeignBucket,
    Holding,
    Key,
    ObjectStoreUnreachable,
    Settings,
    Store,
    StoreAddress,
    aws,
    connect,
    given,
    minio,
    owned,
    s3,
    seaweedfs,
)
from infra.stores.iam import Iam
from infra.stores.owned import OwnedBuckets
from tests.unit import fake_minio

SEAT, OTHER = Holding.of("demo", "ada"), Holding.of("demo", "ben")
REGION = "eu-west-1"


class Broken:
    """A client that makes as many changes as it is told to, and then no further one."""

    def __init__(self) -> None:
        self.after: int | None = None

    def watch(self, client: Any) -> None:
        client.meta.events.register("before-call", self._before)

    def _before(self, model: Any, **_: Any) -> None:
        if model.name.startswith(("Get", "List", "Head")):
            return
        if self.after == 0:
            raise EndpointConnectionError(endpoint_url="https://gone")
        self.after = None if self.after is None else self.after - 1


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store to work with. `break_after` lets so many changes through (None: all); `left` is all that stands in it."""

    store: OwnedBuckets
    break_after: Callable[[int | None], None]
    left: Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _nobody_is_asked_for_real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("ACCESS_KEY_ID", "operator"), ("SECRET_ACCESS_KEY", "operator"), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    connect.cache_clear()
    with mock_aws():
        yield
    connect.cache_clear()


def _buckets(client: Any) -> list[str]:
    return [each["Name"] for each in client.list_buckets()["Buckets"]]


def _amazon() -> Place:
    store = aws.connect(_address("aws"))
    assert isinstance(store, OwnedBuckets)
    assert isinstance(store.identities, Iam)
    broken, iam = Broken(), store.identities.client
    for client in (iam, store.clients("")):
        broken.watch(client)

    def left() -> list[str]:
        users = [each["UserName"] for each in iam.list_users()["Users"]]
        return [
            *_buckets(store.clients("")),
            *users,
            *(each["PolicyName"] for each in iam.list_policies(Scope="Local")["Policies"]),
        ]

    return Place(store=store, break_after=lambda count: setattr(broken, "after", count), left=left)


@contextmanager
def _minio() -> Iterator[tuple[Place, fake_minio.Administration]]:
    """S3 is moto's, to which every key is one; the administration is spoken to over HTTP."""
    with fake_minio.administration() as server:
        broken = Broken()

        def opened(key: Key) -> Any:
            return boto3.client("s3", aws_access_key_id=key.access_key, aws_secret_access_key=key.secret_key)

        admin = MinioAdmin(
            endpoint=server.address.removeprefix("http://"),
            credentials=StaticProvider(fake_minio.ACCESS_KEY, fake_minio.SECRET_KEY),
            secure=False,
        )
        operator = opened(Key(access_key="operator", secret_key="operator"))
        broken.watch(operator)
        users = minio.Users(admin=admin, endpoint=server.address, opens=opened)
        store = OwnedBuckets(identities=users, clients=lambda _: operator, opens=opened, home=REGION)

        def break_after(count: int | None) -> None:
            server.breaks_after = broken.after = count

        def left() -> list[str]:
            return [*_buckets(operator), *server.users, *server.policies]

        yield Place(store=store, break_after=break_after, left=left), server


@pytest.fixture(params=["aws", "minio"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Each store in which this program makes buckets."""
    if request.param == "aws":
        yield _amazon()
    else:
        with _minio() as (made, _):
            yield made


def _address(kind: str, **told: Any) -> StoreAddress:
    fields = {"endpoint": "https://s3.amazonaws.com", "region": REGION, "kubeconfig": "", "namespace": "", "secret": ""}
    return StoreAddress(**{**fields, "kind": kind, "access_key_field": "", "secret_key_field": "", **told})


def test_a_seat_is_made_once_its_key_is_kept_and_it_goes_without_a_trace(place: Place) -> None:
    key = place.store.ensure(SEAT)
    found = place.store.standing(SEAT)
    assert (found.ours, found.bucket, found.tagged, found.user, found.confined) == (True,) * 5
    assert found.access_keys == (key.access_key,)
    made = place.left()
    assert place.store.ensure(SEAT, key) == key
    assert place.store.keeps(SEAT, key)
    assert place.left() == made
    place.store.s3(SEAT).put_object(Bucket=SEAT.bucket, Key="work", Body=b"x")
    place.store.remove(SEAT)
    assert place.left() == []
    # What is gone already is fine.
    place.store.remove(SEAT)


def test_a_key_that_the_state_does_not_know_is_replaced(place: Place) -> None:
    first = place.store.ensure(SEAT)
    second = place.store.ensure(SEAT)
    assert second.secret_key != first.secret_key
    assert place.store.standing(SEAT).access_keys == (second.access_key,)


def test_a_seat_that_was_half_made_is_known_finished_or_taken_away_whenever_it_broke(place: Place) -> None:
    for count in range(20):
        place.break_after(count)
        try:
            place.store.ensure(SEAT)
            broke = False
        except ObjectStoreUnreachable:
            broke = True
        place.break_after(None)
        found = place.store.standing(SEAT)
        assert found.ours, f"after {count} changes"
        assert [each.student for each in place.store.holdings("demo")] == (["ada"] if place.left() else [])
        assert found.bucket is False or found.policy, "the policy comes before the bucket"
        if count % 2:
            place.store.ensure(SEAT)
        place.store.remove(SEAT)
        assert place.left() == [], f"after {count} changes"
        if not broke:
            return
    pytest.fail("a seat takes more changes than anybody thought")


def test_a_removal_that_broke_goes_on_from_there(place: Place) -> None:
    for count in range(20):
        place.store.ensure(SEAT)
        place.store.s3(SEAT).put_object(Bucket=SEAT.bucket, Key="work", Body=b"x")
        place.break_after(count)
        try:
            place.store.remove(SEAT)
            broke = False
        except ObjectStoreUnreachable:
            broke = True
        place.break_after(None)
        assert [each.student for each in place.store.holdings("demo")] == (["ada"] if place.left() else [])
        if count and broke:
            assert not place.store.standing(SEAT).attached, "keys open nothing while the bucket is emptied"
        place.store.remove(SEAT)
        assert place.left() == [], f"after {count} changes"
        if not broke:
            return
    pytest.fail("a removal takes more changes than anybody thought")


def test_a_bucket_of_somebody_else_is_neither_taken_nor_taken_away(place: Place) -> None:
    s3.create(place.store.s3(SEAT), SEAT.bucket, REGION)
    before = place.left()
    assert not place.store.standing(SEAT).ours
    with pytest.raises(ForeignBucket, match=f"bucket {SEAT.bucket} .* was not made for this class"):
        place.store.ensure(SEAT)
    with pytest.raises(ForeignBucket, match="is left alone"):
        place.store.remove(SEAT)
    assert place.left() == before
    assert place.store.holdings("demo") == []


def test_of_two_things_that_are_somebody_elses_the_one_that_stands_is_named() -> None:
    with _minio() as (place, server):
        server.users[SEAT.user] = {"secret": "theirs", "status": "enabled", "policies": []}
        said = f"user {SEAT.user} at .* was not made for this class; "
        with pytest.raises(ForeignBucket, match=said + "give the class another `name`, or remove what has it by hand"):
            place.store.ensure(SEAT)
        with pytest.raises(ForeignBucket, match=said + "it is left alone"):
            place.store.remove(SEAT)


def test_a_policy_that_was_widened_by_hand_is_put_right(place: Place) -> None:
    place.store.ensure(SEAT)
    identities = place.store.identities
    wide = owned.policy("everything")
    if isinstance(identities, minio.Users):
        identities.admin.policy_add(SEAT.policy, policy=wide)
    else:
        assert isinstance(identities, Iam)
        identities.client.create_policy_version(
            PolicyArn=f"{identities.policy_arns}{SEAT.policy}", PolicyDocument=json.dumps(wide), SetAsDefault=True
        )
    assert not place.store.standing(SEAT).confined
    place.store.ensure(SEAT)
    assert place.store.standing(SEAT).confined


def test_holdings_are_found_by_policy_and_by_tag_and_never_those_of_another_class(place: Place) -> None:
    place.store.ensure(SEAT)
    place.store.ensure(Holding.of("demo-2", "cyd"))
    # A bucket whose policy somebody has taken away.
    s3.create(place.store.s3(OTHER), OTHER.bucket, REGION)
    s3.tag(place.store.s3(OTHER), OTHER.bucket, OTHER.tags)
    assert sorted(each.student for each in place.store.holdings("demo", ["dee"])) == ["ada", "ben", "dee"]


def test_buckets_whose_names_cannot_be_the_classs_are_not_asked_for_their_tags(place: Place) -> None:
    place.store.ensure(SEAT)
    client = place.store.s3(SEAT)
    s3.create(client, "payroll", REGION)
    asked: list[str] = []
    client.meta.events.register(
        "before-parameter-build.s3.GetBucketTagging", lambda params, **_: asked.append(params["Bucket"])
    )
    place.store.holdings("demo")
    assert asked == [SEAT.bucket]


def test_a_bucket_gets_the_settings_of_the_class_file_and_loses_those_that_it_drops(place: Place) -> None:
    place.store.ensure(SEAT)
    client, wanted = place.store.s3(SEAT), Settings(versioning=True, lifecycle_days=7)
    for _ in range(2):
        s3.configure(client, SEAT.bucket, wanted)
        assert s3.configured(client, SEAT.bucket) == wanted
    s3.configure(client, SEAT.bucket, Settings())
    assert s3.configured(client, SEAT.bucket) == Settings()


def test_versions_go_with_the_bucket_and_each_object_is_told_with_its_size(place: Place) -> None:
    place.store.ensure(SEAT)
    client = place.store.s3(SEAT)
    s3.configure(client, SEAT.bucket, Settings(versioning=True))
    for body in (b"1", b"22"):
        client.put_object(Bucket=SEAT.bucket, Key="work", Body=body)
    client.delete_object(Bucket=SEAT.bucket, Key="gone")
    assert [size for size, _ in s3.objects(client, SEAT.bucket)] == [2]
    place.store.remove(SEAT)
    assert list(s3.objects(client, SEAT.bucket)) == []
    assert place.left() == []


def test_one_change_of_all_identities_makes_a_seat_and_one_takes_it_away() -> None:
    """As SeaweedFS has it, where such a change waits for all others."""
    held: list[str] = []

    @contextmanager
    def alone() -> Iterator[None]:
        held.append("")
        yield

    amazon = _amazon().store
    assert isinstance(amazon.identities, Iam)
    asked: list[str] = []

    def note(model: Any, **_: Any) -> None:
        if not model.name.startswith(("Get", "List", "Head")):
            asked.append(model.name)
            held[-1:] = [model.name] if held and not held[-1] else held[-1:]
        # Moto's IAM, unlike SeaweedFS', wants a user's keys gone first.
        if model.name == "DeleteUser":
            boto3.client("iam").delete_access_key(UserName=SEAT.user, AccessKeyId=key.access_key)

    amazon.identities.client.meta.events.register("before-call", note)
    store = replace(amazon, identities=replace(amazon.identities, changing=alone, keys_go_with_user=True))
    key = store.ensure(SEAT)
    assert asked == ["CreatePolicy", "CreateUser", "AttachUserPolicy", "CreateAccessKey"]
    store.remove(SEAT)
    assert asked[4:] == ["DetachUserPolicy", "DeleteUser", "DeletePolicy"]
    assert held == ["CreateAccessKey", "DeleteUser"]


def test_seaweedfs_is_asked_at_its_own_address_with_buckets_as_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreAddress, "operator_key", lambda _: Key(access_key="a", secret_key="s"))
    store = seaweedfs.connect(_address("seaweedfs", endpoint="http://198.18.0.101:8333"))
    assert store.endpoint == "http://198.18.0.101:8333"
    assert store.s3(SEAT).meta.config.s3 == {"addressing_style": "path"}
    assert store.leaves == ""


def test_identities_are_changed_by_one_at_a_time_also_in_another_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Where the machine's state is, which no process has to be told.
    monkeypatch.setenv("CLASSROOM_STATE", str(tmp_path))
    for directory in (tmp_path, tmp_path / "node"):
        directory.mkdir(exist_ok=True)
        with seaweedfs._alone(), (directory / "identities.lock").open("r+") as file, pytest.raises(BlockingIOError):
            seaweedfs.fcntl.flock(file, seaweedfs.fcntl.LOCK_EX | seaweedfs.fcntl.LOCK_NB)
        with seaweedfs._alone():
            pass


def test_a_lock_that_cannot_be_had_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLASSROOM_STATE", str(tmp_path / "state"))
    (tmp_path / "state" / "identities.lock").mkdir(parents=True)
    with pytest.raises(IsADirectoryError), seaweedfs._alone():
        pass
    assert not seaweedfs._one_thread.locked()


# --- AWS ------------------------------------------------------------------------------------------------------------


def test_a_key_of_aws_opens_its_own_bucket_and_no_other() -> None:
    store = _amazon().store
    mine, theirs = (store.opened_with(store.ensure(each)) for each in (SEAT, OTHER))
    theirs.put_object(Bucket=OTHER.bucket, Key="secret", Body=b"x")
    with enable_iam_authentication():
        mine.put_object(Bucket=SEAT.bucket, Key="work", Body=b"x")
        assert mine.list_objects_v2(Bucket=SEAT.bucket)["KeyCount"] == 1
        for act in (mine.list_objects_v2, mine.delete_bucket):
            with pytest.raises(ClientError, match="AccessDenied"):
                act(Bucket=OTHER.bucket)
        with pytest.raises(ClientError, match=r"AccessDenied|403|Forbidden"):
            mine.get_object(Bucket=OTHER.bucket, Key="secret")
        with pytest.raises(ClientError, match="AccessDenied"):
            mine.put_bucket_tagging(Bucket=SEAT.bucket, Tagging={"TagSet": []})


def test_a_bucket_of_aws_lies_in_the_region_that_is_asked_for_else_in_the_stores() -> None:
    store = _amazon().store
    client = boto3.client("s3")
    for holding, asked, region in ((SEAT, "", REGION), (OTHER, "us-west-2", "us-west-2")):
        store.ensure(holding, region=asked)
        assert client.get_bucket_location(Bucket=holding.bucket)["LocationConstraint"] == region
    cyd = Holding.of("demo", "cyd")
    store.ensure(cyd, region="us-east-1")
    assert client.get_bucket_location(Bucket=cyd.bucket)["LocationConstraint"] is None
    assert store.endpoint == f"https://s3.{REGION}.amazonaws.com"
    assert store.s3(SEAT).meta.config.s3["addressing_style"] == "virtual"


def test_what_is_made_at_aws_lies_under_a_path_of_its_own() -> None:
    store = _amazon().store
    store.ensure(SEAT)
    iam = boto3.client("iam")
    assert [each["Path"] for each in iam.list_users()["Users"]] == ["/kubeflow-classroom/"]
    (policy,) = iam.list_policies(Scope="Local")["Policies"]
    assert policy["Arn"] == f"arn:aws:iam::123456789012:policy/kubeflow-classroom/{SEAT.policy}"


def test_keys_of_aws_are_switched_off_and_on() -> None:
    store = _amazon().store
    store.ensure(SEAT)
    iam = boto3.client("iam")
    for active, status in ((False, "Inactive"), (True, "Active")):
        store.switch_keys(SEAT, active=active)
        (key,) = iam.list_access_keys(UserName=SEAT.user)["AccessKeyMetadata"]
        assert key["Status"] == status


class _Waking:
    """A client whose key is refused some times first."""

    def __init__(self, refusals: int) -> None:
        self.left = refusals

    def list_objects_v2(self, **_: Any) -> None:
        if self.left:
            self.left -= 1
            raise ClientError({"Error": {"Code": "InvalidAccessKeyId"}}, "ListObjectsV2")


def test_a_new_key_of_aws_is_waited_for_but_not_for_ever() -> None:
    waited: list[float] = []
    aws.wait_until_it_opens(_Waking(3), "b", waited.append, lambda: 0.0)
    assert len(waited) == 3
    clock = iter(range(0, 1000, 50))
    with pytest.raises(ObjectStoreUnreachable, match=r"does not open it after 90 s \(InvalidAccessKeyId\)"):
        aws.wait_until_it_opens(_Waking(100), "b", waited.append, lambda: next(clock))


def test_whoever_has_no_credentials_for_aws_is_told_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(aws.NoCredentials, match="set AWS_PROFILE"):
        aws.connect(_address("aws"))


class _Closed:
    """A client to which a bucket is closed."""

    def head_bucket(self, **_: Any) -> None:
        raise ClientError({"Error": {"Code": "403"}}, "HeadBucket")


def test_a_name_that_somebody_else_has_at_aws_counts_as_taken() -> None:
    assert s3.look(_Closed(), SEAT.bucket) == (True, {})


def test_pulumi_makes_looks_at_mends_and_removes_a_bucket_at_aws() -> None:
    provider, iam = _BucketProvider(), boto3.client("iam")
    settings = {"region": "us-west-2", "versioning": False, "lifecycle_days": 7.0}
    props = {"address": asdict(_address("aws")), "holding": asdict(SEAT), "settings": settings}
    made = provider.create(props)
    state = made.outs or {}
    seen = provider.read(made.id, state).outs or {}
    assert not provider.diff(made.id, seen, props).changes
    iam.delete_access_key(UserName=SEAT.user, AccessKeyId=state["access_key"])
    hurt = provider.read(made.id, state).outs or {}
    assert (hurt["key_intact"], hurt["policy_intact"], hurt["tags_intact"]) == (False, True, True)
    change = provider.diff(made.id, hurt, props)
    assert change.changes
    assert not change.replaces
    mended = provider.update(made.id, hurt, props).outs or {}
    assert mended["access_key"] != state["access_key"]
    provider.delete(made.id, mended)
    assert provider.read(made.id, mended).id == ""
    assert iam.list_users()["Users"] == []


# --- MinIO ----------------------------------------------------------------------------------------------------------


def test_a_user_of_minio_may_do_nothing_for_itself_and_a_closed_one_keeps_its_key() -> None:
    with _minio() as (place, server):
        key = place.store.ensure(SEAT)
        assert key.access_key == SEAT.user
        assert server.users[SEAT.user] == {"secret": key.secret_key, "status": "enabled", "policies": [SEAT.policy]}
        assert {"Effect": "Deny", "Action": ["admin:*"]} in server.policies[SEAT.policy]["Statement"]
        place.store.switch_keys(SEAT, active=False)
        assert server.users[SEAT.user]["status"] == "disabled"
        assert place.store.ensure(SEAT, key) == key
        place.store.switch_keys(SEAT, active=True)
        assert server.users[SEAT.user]["status"] == "enabled"
        assert server.signed


@pytest.mark.parametrize(("code", "kept"), [("SignatureDoesNotMatch", False), ("AccessDenied", True)])
def test_a_secret_that_minio_does_not_know_any_more_is_replaced(code: str, kept: bool) -> None:
    class Refusing:
        meta = boto3.client("s3").meta

        def list_objects_v2(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": code}}, "ListObjectsV2")

    with _minio() as (place, _):
        key = place.store.ensure(SEAT)
        identities = place.store.identities
        assert isinstance(identities, minio.Users)
        asked = minio.Users(admin=identities.admin, endpoint=identities.endpoint, opens=lambda _: Refusing())
        assert asked.keeps(SEAT, key) is kept


def test_what_minio_refuses_is_told_by_its_code_and_without_what_was_sent() -> None:
    with _minio() as (place, _):
        place.break_after(0)
        with pytest.raises(ObjectStoreUnreachable) as refused:
            place.store.ensure(SEAT)
        assert "XMinioAdminBucketQuotaExceeded" in str(refused.value)
        assert "s3:GetObject" not in str(refused.value)


def test_a_minio_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreAddress, "operator_key", lambda _: Key(access_key="a", secret_key="s"))
    store = minio.connect(_address("minio", endpoint="http://127.0.0.1:9"))
    with pytest.raises(ObjectStoreUnreachable, match=r"MinIO at http://127.0.0.1:9 does not answer"):
        store.standing(SEAT)


# --- given ----------------------------------------------------------------------------------------------------------

_HEADER = "id,bucket,access_key,secret_key\n"


def _keys_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / "keys.csv"
    file.write_text(text)
    file.chmod(mode)
    given._lines.cache_clear()
    return file


def _given(tmp_path: Path, text: str) -> tuple[StoreAddress, Store]:
    address = _address("given", keys_file=str(_keys_file(tmp_path, text)))
    return address, connect(address)


def test_given_buckets_are_tried_handed_on_and_left_as_found(tmp_path: Path) -> None:
    operator = boto3.client("s3")
    s3.create(operator, "team-a", REGION)
    operator.put_object(Bucket="team-a", Key="mine", Body=b"x")
    address, store = _given(tmp_path, f"{_HEADER}ada,team-a,K1,S1\n")
    holding = address.holding("demo", "ada")
    assert holding.bucket == "team-a"
    key = store.ensure(holding)
    assert (key.access_key, key.secret_key) == ("K1", "S1")
    assert store.standing(holding).ours
    assert store.standing(holding).confined
    assert store.keeps(holding, key)
    assert not store.keeps(holding, Key(access_key="K1", secret_key="another"))
    assert [size for size, _ in s3.objects(store.s3(holding), holding.bucket)] == [1]
    store.remove(holding)
    assert _buckets(operator) == ["team-a"]
    assert store.holdings("demo", ["ada"]) == []
    assert "left as found" in store.leaves


def test_a_given_key_that_does_not_open_its_bucket_is_told_with_its_line(tmp_path: Path) -> None:
    address, store = _given(tmp_path, f"{_HEADER}\nada,team-a,K1,S1-secret\n")
    with pytest.raises(given.GivenKeyRefused) as refused:
        store.ensure(address.holding("demo", "ada"))
    said = str(refused.value)
    assert "keys.csv:3: the key of ada does not open bucket team-a" in said
    assert "NoSuchBucket" in said
    assert "S1-secret" not in said


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "keys.csv:1: is empty; write `id,bucket,access_key,secret_key` in its first line"),
        (f"{_HEADER}ben,b,K2,S2\n", "keys.csv: has no line for student ada; add one: `ada,BUCKET,KEY,SECRET`"),
        (f"{_HEADER}ada,b,K1,\n", "keys.csv:2: secret_key: is empty; write it, or take the line away"),
        (f"{_HEADER}ada,b,K1,S1\nben,b,K2,S2\n", "keys.csv:3: bucket: is that of line 2 too; give every student"),
        (f"{_HEADER}ada,b,K1,S1\nben,c,K1,S2\n", "keys.csv:3: access_key: is that of line 2 too; give every student"),
        (f"{_HEADER}ada,b,K1,S1\nada,c,K2,S2\n", "keys.csv:3: id: is that of line 2 too; give every student"),
        ("ada,b,AKIASECRET,SECRET\n", "keys.csv:1: names none of the columns; write `id,bucket,access_key,secret_key`"),
        (f"{_HEADER}ada,b,K1,SECRET,x\n", "keys.csv:2: has 5 cells, but there are 4 columns"),
    ],
)
def test_a_mistake_in_the_file_of_keys_is_answered_with_its_line_and_no_key(
    tmp_path: Path, text: str, answer: str
) -> None:
    address, _ = _given(tmp_path, text)
    with pytest.raises(given.KeysFileMistake) as mistake:
        address.holding("demo", "ada")
    assert answer in str(mistake.value)
    assert not [each for each in ("AKIASECRET", "SECRET,", "S1", "S2", "K1", "K2") if each in str(mistake.value)]


def test_a_file_of_keys_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = _keys_file(tmp_path, f"{_HEADER}ada,b,K1,S1\n", mode=0o644)
    with pytest.raises(given.KeysFileMistake, match=f"others than its owner may read it; run `chmod 600 {file}`"):
        given.given(file, "ada")
    with pytest.raises(given.KeysFileMistake, match=r"cannot be read .*; mend `platform.object_store.keys_file`"):
        given.given(tmp_path / "none.csv", "ada")


def test_a_key_that_is_another_in_its_file_by_now_is_handed_on_at_the_next_up(tmp_path: Path) -> None:
    s3.create(boto3.client("s3"), "team-a", REGION)
    address, _ = _given(tmp_path, f"{_HEADER}ada,team-a,K1,S1\n")
    provider, props = _BucketProvider(), {"address": asdict(address), "holding": asdict(address.holding("demo", "ada"))}
    state = provider.create(props).outs or {}
    assert not provider.diff("team-a", state, props).changes
    _keys_file(tmp_path, f"{_HEADER}ada,team-a,K2,S2\n")
    change = provider.diff("team-a", state, props)
    assert (change.changes, change.replaces) == (True, [])
    mended = provider.update("team-a", state, props).outs or {}
    assert (mended["access_key"], mended["secret_key"]) == ("K2", "S2")


# --- all ------------------------------------------------------------------------------------------------------------


def test_a_platform_names_the_kind_of_its_store_and_no_address_holds_a_secret(platform: Platform) -> None:
    store = ObjectStore(kind="aws", region=REGION)
    address = StoreAddress.of(platform.model_copy(update={"object_store": store}))
    assert (address.kind, address.endpoint) == ("aws", f"https://s3.{REGION}.amazonaws.com")
    assert isinstance(connect(address), OwnedBuckets)
    assert StoreAddress.of(platform).kind == "seaweedfs"
    assert "topsecret" not in repr(Key(access_key="a", secret_key="topsecret"))


def test_a_client_with_an_empty_key_does_not_look_for_another() -> None:
    client = s3.client("s3", Key(access_key="", secret_key=""), REGION, "https://s3.example.org")
    assert client._request_signer._credentials.access_key == ""


def test_no_bucket_user_or_policy_is_found_where_nothing_was_made(place: Place) -> None:
    found = place.store.standing(SEAT)
    assert (found.ours, found.bucket, found.user, found.policy, found.access_keys) == (True, False, False, False, ())
    assert naming.seat_of_policy(SEAT.policy) == ("demo", "ada")
