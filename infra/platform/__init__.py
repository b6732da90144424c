"""Kubeflow's own parts, put on a bare cluster by one Pulumi program. A file is a part; read them in this order.

    dns  volumes  load_balancer  network_policy      what any cluster needs
    database  object_store  metadata                 what remembers (each on a volume of its own)
    workflows  pipelines  notebooks  gpu             what works
    login  gateway  roles                            who may do what, and the one door

`kubeflow` composes them, `settings` and `images` are what can be chosen, `generated` makes the secrets; `workload`,
`manifests` and `rights` are the shapes they are written in.
"""
