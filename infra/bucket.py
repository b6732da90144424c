"""A student's bucket, and a key that opens that bucket alone, as Pulumi makes, looks at and removes them.

What that means in the object store at hand is the business of infra/stores. The operator's key is in no file and in no
state: whoever needs it asks for it while it runs.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

from infra.failure import Failure
from infra.spec import BucketSpec, Platform
from infra.stores import Holding, Key, Settings, StoreAddress, connect, s3


class BucketElsewhere(Failure):
    """A bucket stands in another store or region than is now asked for; buckets cannot be moved."""


class _BucketProvider(ResourceProvider):
    """Bucket, user, policy and key as one resource: they are made, looked at and removed together.

    Inputs: `address` (StoreAddress), `holding` (Holding) and, where the bucket is not as the store makes it, `settings`
    (Settings), as dicts. Outputs besides: what was seen of them.
    """

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        address, holding = _inputs(props)
        store, settings = connect(address), _settings(props)
        key = store.ensure(holding, region=settings.region)
        if "settings" in props:
            s3.configure(store.s3(holding), holding.bucket, settings)
        return CreateResult(id_=holding.bucket, outs={**props, **_seen(holding, key)})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        address, holding = _inputs(props)
        store = connect(address)
        found = store.standing(holding)
        if not found.bucket:
            return ReadResult("", {})
        # What has gone or changed is told by an output that is false, which `diff` then finds wanting.
        key = _key(props)
        outs = {
            **props,
            "policy_intact": found.confined,
            "tags_intact": found.tagged,
            "key_intact": store.keeps(holding, key),
        }
        if "settings" in props:
            outs["settings"] = asdict(s3.configured(store.s3(holding), holding.bucket, _settings(props).region))
        return ReadResult(id_, outs)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        (before, held), (after, holding) = _inputs(_olds), _inputs(_news)
        # A replacement takes the bucket away, with all work in it; where another store is meant, `update` refuses.
        replaces = ["holding"] if held != holding and _store(before) == _store(after) else []
        hurt = not all(_olds.get(key) for key in ("policy_intact", "tags_intact", "key_intact"))
        changed = (before, held, _settings(_olds)) != (after, holding, _settings(_news))
        # A key that was given is no input; its file may hold another by now.
        rekeyed = after.kind == "given" and not connect(after).keeps(holding, _key(_olds))
        return DiffResult(changes=hurt or changed or rekeyed, replaces=replaces, delete_before_replace=True)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        (there, held), (address, holding) = _inputs(_olds), _inputs(_news)
        if _store(there) != _store(address):
            at = f"region: {there.region}" if there.kind == "aws" else f"endpoint: {there.endpoint}"
            raise BucketElsewhere(
                f"bucket {held.bucket} lies in another object store than {address.endpoint} and cannot be moved; "
                f"write `kind: {there.kind}` and `{at}` again under `platform.object_store` in the class file, "
                "or take the class down first with the old address"
            )
        before, settings = _settings(_olds), _settings(_news)
        if before.region != settings.region:
            where = f"region {before.region}" if before.region else "the object store's own region"
            mend = f"write `region: {before.region}`" if before.region else "take `region` out"
            raise BucketElsewhere(
                f"bucket {holding.bucket} lies in {where} and cannot be moved; "
                f"{mend} under `bucket` in the class file, or take the class down first"
            )
        store = connect(address)
        key = store.ensure(holding, _key(_olds))
        if before != settings:
            s3.configure(store.s3(holding), holding.bucket, settings)
        return UpdateResult(outs={**_news, **_seen(holding, key)})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        address, holding = _inputs(_props)
        connect(address).remove(holding)


def _inputs(props: dict[str, Any]) -> tuple[StoreAddress, Holding]:
    named = props["holding"]
    # A state of an earlier version tells more of it.
    holding = Holding(**{field.name: named[field.name] for field in fields(Holding)})
    return StoreAddress(**props["address"]), holding


def _store(address: StoreAddress) -> tuple[str, str]:
    """What tells one store from another. A state of an earlier version may have a slash behind the endpoint."""
    return address.kind, address.endpoint.rstrip("/")


def _key(props: dict[str, Any]) -> Key:
    return Key(access_key=props.get("access_key") or "", secret_key=props.get("secret_key") or "")


def _settings(props: dict[str, Any]) -> Settings:
    given: dict[str, Any] = props.get("settings") or asdict(Settings())
    # Every number of a resource is a float to Pulumi.
    return Settings(region=given["region"], versioning=given["versioning"], lifecycle_days=int(given["lifecycle_days"]))


def _seen(holding: Holding, key: Key) -> dict[str, Any]:
    intact = {"policy_intact": True, "tags_intact": True, "key_intact": True}
    return {"bucket": holding.bucket, "access_key": key.access_key, "secret_key": key.secret_key, **intact}


class _StudentBucket(Resource, module="classroom", name="Bucket"):
    bucket: pulumi.Output[str]
    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]

    def __init__(
        self, name: str, address: StoreAddress, holding: Holding, settings: Settings, opts: pulumi.ResourceOptions
    ) -> None:
        outputs = ("bucket", "access_key", "secret_key", "policy_intact", "tags_intact", "key_intact")
        props: dict[str, Any] = {"address": asdict(address), "holding": asdict(holding), **dict.fromkeys(outputs)}
        if settings != Settings():
            props["settings"] = asdict(settings)
        secret = pulumi.ResourceOptions(additional_secret_outputs=["access_key", "secret_key"])
        super().__init__(_BucketProvider(), name, props, pulumi.ResourceOptions.merge(opts, secret))


@dataclass(frozen=True, kw_only=True)
class BucketArgs:
    """Whose bucket it is, in which object store, and how it is to be."""

    class_name: str
    student: str
    platform: Platform
    spec: BucketSpec


class Bucket(pulumi.ComponentResource):
    """A bucket of the student's own, with a key that opens it alone; `access_key` and `secret_key` are secret.

    Errors: `infra.stores.given.KeysFileMistake`, where buckets are given.
    """

    bucket: pulumi.Output[str]
    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]

    def __init__(self, name: str, args: BucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("classroom:index:Bucket", name, None, opts)
        address = StoreAddress.of(args.platform)
        made = _StudentBucket(
            f"{name}-bucket",
            address,
            address.holding(args.class_name, args.student),
            Settings.of(args.spec),
            pulumi.ResourceOptions(parent=self),
        )
        self.bucket = made.bucket
        self.access_key, self.secret_key = pulumi.Output.secret(made.access_key), pulumi.Output.secret(made.secret_key)
        self.register_outputs({"bucket": self.bucket})
