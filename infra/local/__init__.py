"""The one-machine cluster: pinned tools, images without a registry, and a node in a network namespace."""
