"""What a part may do in the cluster: a ServiceAccount with exactly its rules."""

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete")
ALL = (*READ, *WRITE)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Verbs on resources of one API group ("" is the core group)."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]

    def args(self) -> k8s.rbac.v1.PolicyRuleArgs:
        return k8s.rbac.v1.PolicyRuleArgs(
            api_groups=[self.group], resources=list(self.resources), verbs=list(self.verbs)
        )


def account(
    name: str,
    namespace: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
    *,
    everywhere: tuple[Rule, ...] = (),
    in_namespace: tuple[Rule, ...] = (),
) -> pulumi.Output[str]:
    """The name of a new ServiceAccount with these rights, known once it may use them.

    `everywhere` rules hold in every namespace and for what has none, `in_namespace` rules in its own namespace.
    """
    made = k8s.core.v1.ServiceAccount(
        name,
        metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace),
        automount_service_account_token=False,
        opts=opts,
    )
    subjects = [k8s.rbac.v1.SubjectArgs(kind="ServiceAccount", name=name, namespace=namespace)]
    bindings: list[pulumi.Output[str]] = []
    if everywhere:
        whole = f"classroom-{name}"
        role = k8s.rbac.v1.ClusterRole(
            name, metadata=k8s.meta.v1.ObjectMetaArgs(name=whole), rules=[rule.args() for rule in everywhere], opts=opts
        )
        binding = k8s.rbac.v1.ClusterRoleBinding(
            name,
            metadata=k8s.meta.v1.ObjectMetaArgs(name=whole),
            role_ref=k8s.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=whole),
            subjects=subjects,
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[role])),
        )
        bindings.append(binding.id)
    if in_namespace:
        role_here = k8s.rbac.v1.Role(
            name,
            metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace),
            rules=[rule.args() for rule in in_namespace],
            opts=opts,
        )
        binding_here = k8s.rbac.v1.RoleBinding(
            name,
            metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace),
            role_ref=k8s.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=name),
            subjects=subjects,
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[role_here])),
        )
        bindings.append(binding_here.id)
    return pulumi.Output.all(made.id, *bindings).apply(lambda _: name)
