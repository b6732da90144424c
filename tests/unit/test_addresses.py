"""The address plan: whatever the range, its parts lie inside, apart, and are large enough."""

from ipaddress import IPv4Network, ip_network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.addresses import AddressError, AddressPlan, Use, plan, taken


@st.composite
def usable_networks(draw: st.DrawFn) -> IPv4Network:
    """Ranges of every width that is allowed, among the addresses from 1.0.0.0 to 126.255.255.255."""
    prefix = draw(st.integers(10, 20))
    address = draw(st.integers(1 << 24, (127 << 24) - 1))
    network = IPv4Network((address >> (32 - prefix) << (32 - prefix), prefix))
    return network if network[0].packed[0] > 0 else IPv4Network((1 << 24, prefix))


def parts(addresses: AddressPlan) -> list[IPv4Network]:
    return [addresses.link, addresses.services, addresses.pods]


@given(usable_networks())
def test_every_part_lies_in_the_range(network: IPv4Network) -> None:
    assert all(part.subnet_of(network) for part in [*parts(plan(network)), plan(network).node_pods])


@given(usable_networks())
def test_no_two_parts_overlap(network: IPv4Network) -> None:
    assert not any(one.overlaps(other) for one, other in combinations(parts(plan(network)), 2))


@given(usable_networks())
def test_the_nodes_pods_are_pods_and_at_least_a_thousand(network: IPv4Network) -> None:
    addresses = plan(network)
    assert addresses.node_pods.subnet_of(addresses.pods)
    assert addresses.node_pods.num_addresses >= 1024


@given(usable_networks())
def test_host_node_and_load_balancers_are_different_addresses_of_the_link(network: IPv4Network) -> None:
    addresses = plan(network)
    named = [addresses.host, addresses.node, addresses.gateway, addresses.object_store]
    assert len(set(named)) == 4
    assert all(address in addresses.link for address in [*named, *addresses.load_balancers])
    assert addresses.dns in addresses.services


def test_the_default_is_the_documented_one() -> None:
    addresses = plan()
    assert str(addresses.link) == "198.18.0.0/24"
    assert str(addresses.services) == "198.18.128.0/17"
    assert str(addresses.pods) == "198.19.0.0/16"
    assert str(addresses.node_pods) == "198.19.0.0/22"
    assert (str(addresses.gateway), str(addresses.object_store)) == ("198.18.0.100", "198.18.0.101")
    assert (str(addresses.dns), addresses.api_server) == ("198.18.128.10", "https://198.18.0.2:6443")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("198.18.0.0/21", "too narrow"),
        ("10.0.0.0/8", "too wide"),
        ("198.18.0.1/15", "host bits"),
        ("fd00::/16", "IPv6"),
        ("class", "not a network"),
        ("", "not a network"),
        ("127.0.0.0/12", "mean something else"),
        ("224.0.0.0/12", "mean something else"),
        ("0.0.0.0/10", "mean something else"),
        ("169.254.0.0/16", "mean something else"),
    ],
)
def test_an_unusable_range_is_refused_with_the_setting_that_mends_it(network: str, said: str) -> None:
    with pytest.raises(AddressError, match=said) as refused:
        plan(network)
    assert "CLASSROOM_NETWORK" in str(refused.value).splitlines()[-1]


@pytest.mark.parametrize("other", ["198.18.0.0/24", "198.0.0.0/8", "198.19.255.0/28", "198.18.0.0/15"])
def test_a_range_that_overlaps_with_the_machines_networks_is_taken(other: str) -> None:
    with pytest.raises(AddressError, match="route through tun0"):
        taken(plan(), [Use(network=IPv4Network(other), where="route through tun0")])


@given(usable_networks(), usable_networks())
def test_taken_agrees_with_overlap(network: IPv4Network, other: IPv4Network) -> None:
    overlapping = network.overlaps(ip_network(other))
    try:
        taken(plan(network), [Use(network=other, where="network of eth1")])
    except AddressError:
        assert overlapping
    else:
        assert not overlapping


def test_the_default_route_takes_nothing() -> None:
    taken(plan(), [Use(network=IPv4Network("0.0.0.0/0"), where="route through eth0")])
