"""Every address of the one-machine platform, carved from one range.

The range (198.18.0.0/15 unless set: RFC 2544's, which no real network uses) is cut like this, shown for the default:

    link      198.18.0.0/24     the cable between machine (.1) and node (.2); load balancers .100 to .120
    services  198.18.128.0/17   the second half of the first half
    pods      198.19.0.0/16     the second half; the one node's own pods are its first /22
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network

from infra.failure import CallFailure

DEFAULT_NETWORK = "198.18.0.0/15"
NODE_POD_PREFIX = 22

# Kubernetes refuses a service range wider than /12, which is two bits narrower than ours; and below /20 the node's pods
# or the link no longer fit into their parts.
_WIDEST_PREFIX, _NARROWEST_PREFIX = 10, 20
_MEND = f"set CLASSROOM_NETWORK to an unused IPv4 range of /{_WIDEST_PREFIX} to /{_NARROWEST_PREFIX}"


class AddressError(CallFailure):
    """The network range cannot be used; the message says why and what to set."""


@dataclass(frozen=True, kw_only=True)
class AddressPlan:
    """Who has which address. Made by `plan`; every part lies in `network` and no two parts overlap."""

    network: IPv4Network
    link: IPv4Network
    services: IPv4Network
    pods: IPv4Network
    node_pods: IPv4Network

    @property
    def host(self) -> IPv4Address:
        """The machine's end of the cable."""
        return self.link[1]

    @property
    def node(self) -> IPv4Address:
        """The node's end of the cable; the Kubernetes API is at port 6443 of it."""
        return self.link[2]

    @property
    def gateway(self) -> IPv4Address:
        return self.link[100]

    @property
    def object_store(self) -> IPv4Address:
        return self.link[101]

    @property
    def load_balancers(self) -> tuple[IPv4Address, IPv4Address]:
        """First and last address that load balancers may have."""
        return self.link[100], self.link[120]

    @property
    def dns(self) -> IPv4Address:
        """The cluster's DNS service: the tenth service address, as kubeadm has it."""
        return self.services[10]

    @property
    def api_server(self) -> str:
        return f"https://{self.node}:6443"


def plan(network: str | IPv4Network = DEFAULT_NETWORK) -> AddressPlan:
    """Carve the plan from one IPv4 range of /10 to /20.

    Errors: `AddressError` when the text is no network, has host bits set, is not IPv4, is too wide or too narrow, or
    belongs to loopback, link-local, multicast or reserved addresses.
    """
    mend = f"{_MEND}, such as {DEFAULT_NETWORK}"
    try:
        whole = ip_network(network)
    except ValueError as error:
        raise AddressError(f"the platform's network is not a network: {error}\n{mend}") from error
    if not isinstance(whole, IPv4Network):
        raise AddressError(f"the platform's network {whole} is IPv6\n{mend}")
    if not _WIDEST_PREFIX <= whole.prefixlen <= _NARROWEST_PREFIX:
        raise AddressError(
            f"the platform's network {whole} is too {'wide' if whole.prefixlen < _WIDEST_PREFIX else 'narrow'}\n{mend}"
        )
    for first in (whole[0], whole[-1]):
        if (
            first.is_loopback
            or first.is_link_local
            or first.is_multicast
            or first.is_unspecified
            or first.packed[0] in (0, 127)
            or first.packed[0] >= 224
        ):
            raise AddressError(f"the platform's network {whole} holds addresses that mean something else\n{mend}")
    lower, upper = whole.subnets()
    _, services = lower.subnets()
    return AddressPlan(
        network=whole,
        link=next(lower.subnets(new_prefix=24)),
        services=services,
        pods=upper,
        node_pods=next(upper.subnets(new_prefix=NODE_POD_PREFIX)) if upper.prefixlen < NODE_POD_PREFIX else upper,
    )


@dataclass(frozen=True, kw_only=True)
class Use:
    """A network that the machine knows already, and where from ("route via eth0", "address of docker0")."""

    network: IPv4Network
    where: str


def taken(addresses: AddressPlan, uses: Iterable[Use]) -> None:
    """Refuse a plan that overlaps with anything in `uses` (the platform's own routes left out by the caller).

    Errors: `AddressError` naming the first overlap.
    """
    for use in uses:
        if use.network.prefixlen > 0 and use.network.overlaps(addresses.network):
            raise AddressError(
                f"the platform's network {addresses.network} is taken: {use.network} is a {use.where}\n{_MEND}"
            )
