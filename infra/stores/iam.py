"""Users, managed policies and access keys as AWS's IAM has them, which SeaweedFS speaks too."""

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from infra.session import switch_keys
from infra.stores import Holding, Key
from infra.stores.owned import Identity, Policy, policy, text
from infra.stores.s3 import or_none, told


def _at_once(_key: Key, _bucket: str) -> None:
    """A new key works as soon as it is told."""


@dataclass(frozen=True, kw_only=True)
class Iam:
    """Identities (`infra.stores.owned`) in IAM.

    `policy_arns`: what the ARN of a policy begins with. `path`: where users and policies lie. `changing`: what is held
    while a change is made beside which no other may be. `keys_go_with_user`: whether DeleteUser takes the user's keys
    along. `works`: waits until a key that was just made opens its bucket.
    """

    client: Any
    policy_arns: str
    path: str = "/"
    changing: Callable[[], AbstractContextManager[object]] = nullcontext
    keys_go_with_user: bool = False
    works: Callable[[Key, str], None] = _at_once

    def found(self, holding: Holding) -> Identity:
        with told(self.client):
            attached = or_none(self.client.list_attached_user_policies, UserName=holding.user)
            keys = or_none(self.client.list_access_keys, UserName=holding.user) if attached is not None else None
            document = self._document(holding)
        names = [each["PolicyName"] for each in (attached or {}).get("AttachedPolicies", [])]
        return Identity(
            user=attached is not None,
            policy=document,
            attached=holding.policy in names,
            access_keys=tuple(each["AccessKeyId"] for each in (keys or {}).get("AccessKeyMetadata", [])),
        )

    def _document(self, holding: Holding) -> Policy | None:
        arn = self._arn(holding)
        found = or_none(self.client.get_policy, PolicyArn=arn)
        if found is None:
            return None
        version = found["Policy"]["DefaultVersionId"]
        answer = or_none(self.client.get_policy_version, PolicyArn=arn, VersionId=version)
        if answer is None:
            return None
        document = answer["PolicyVersion"]["Document"]
        # Boto3 reads the document where it is quoted as AWS quotes it.
        return dict(json.loads(unquote(document)) if isinstance(document, str) else document)

    def policies(self) -> Iterable[str]:
        with told(self.client):
            pages = self.client.get_paginator("list_policies").paginate(Scope="Local", PathPrefix=self.path)
            return [each["PolicyName"] for page in pages for each in page.get("Policies", [])]

    def add_policy(self, holding: Holding) -> None:
        with told(self.client):
            document = text(policy(holding.bucket))
            self.client.create_policy(PolicyName=holding.policy, PolicyDocument=document, Path=self.path)

    def add_user(self, holding: Holding) -> None:
        with told(self.client):
            self.client.create_user(UserName=holding.user, Path=self.path)

    def attach(self, holding: Holding) -> None:
        with told(self.client):
            self.client.attach_user_policy(UserName=holding.user, PolicyArn=self._arn(holding))

    def detach(self, holding: Holding) -> None:
        with told(self.client):
            or_none(self.client.detach_user_policy, UserName=holding.user, PolicyArn=self._arn(holding))

    def only_key(self, holding: Holding, key: Key | None) -> Key:
        standing = self._access_keys(holding)
        kept = key if key and key.access_key in standing else None
        # A student's key may make further keys for its own user.
        self._delete_keys(holding, [each for each in standing if kept is None or each != kept.access_key])
        if kept:
            return kept
        with told(self.client), self.changing():
            made = self.client.create_access_key(UserName=holding.user)["AccessKey"]
        new = Key(access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"])
        self.works(new, holding.bucket)
        return new

    def keeps(self, holding: Holding, key: Key) -> bool:
        return self._access_keys(holding) == [key.access_key]

    def switch_keys(self, holding: Holding, *, active: bool) -> None:
        with told(self.client), self.changing():
            switch_keys(self.client, holding.user, active=active)

    def remove_user(self, holding: Holding) -> None:
        if not self.keys_go_with_user:
            self._delete_keys(holding, self._access_keys(holding))
        with told(self.client), self.changing():
            or_none(self.client.delete_user, UserName=holding.user)

    def remove_policy(self, holding: Holding) -> None:
        arn = self._arn(holding)
        with told(self.client):
            versions = (or_none(self.client.list_policy_versions, PolicyArn=arn) or {}).get("Versions", [])
            for each in versions:
                if not each["IsDefaultVersion"]:
                    or_none(self.client.delete_policy_version, PolicyArn=arn, VersionId=each["VersionId"])
            or_none(self.client.delete_policy, PolicyArn=arn)

    def _arn(self, holding: Holding) -> str:
        return f"{self.policy_arns}{holding.policy}"

    def _access_keys(self, holding: Holding) -> list[str]:
        with told(self.client):
            answer = or_none(self.client.list_access_keys, UserName=holding.user) or {}
        return [each["AccessKeyId"] for each in answer.get("AccessKeyMetadata", [])]

    def _delete_keys(self, holding: Holding, access_keys: Iterable[str]) -> None:
        for each in access_keys:
            with told(self.client), self.changing():
                or_none(self.client.delete_access_key, UserName=holding.user, AccessKeyId=each)
