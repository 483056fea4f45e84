"""Whoever sends a header cannot choose who to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import addresses
from domain.addresses import client_address, network

PROXIES = tuple(map(network, ("10.0.0.0/8", "2001:db8:ffff::/48")))
NEAR = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("/run/weir.sock", "unknown"),
    ],
)
def test_an_address_has_one_name(peer, name):
    """However it is written; of IPv6, whoever has one address has a whole network of them."""
    assert client_address(peer, (), ()) == name


@given(st.lists(st.text(max_size=50), max_size=5))
def test_nobody_believes_a_header_that_no_trusted_proxy_sent(forwarded):
    """Forging it changes nothing."""
    assert client_address("192.0.2.1", forwarded, ()) == "192.0.2.1"
    assert client_address("192.0.2.1", forwarded, PROXIES) == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "name"),
    [
        ([], NEAR),
        (["192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.1.1.1,10.2.2.2"], "192.0.2.1"),
        (["192.0.2.1", "2001:db8:ffff::7"], "192.0.2.1"),
        (["203.0.113.9, 192.0.2.1, ::ffff:10.1.1.1"], "192.0.2.1"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["[2001:db8::1]:4711"], "2001:db8::/64"),
        (["192.0.2.1, unknown"], NEAR),
        (["192.0.2.1,"], NEAR),
        ([""], NEAR),
        (["192.0.2.1, garbage, 10.2.2.2"], "10.2.2.2"),
        (["192.0.2.1, " + "9" * 5000], NEAR),
        (["192.0.2.1; DROP"], NEAR),
        (["192.0.2.1%0a"], NEAR),
    ],
)
def test_what_trusted_proxies_have_added_is_believed_and_nothing_before_it(forwarded, name):
    """Read from the right: the left is the client's own."""
    assert client_address(NEAR, forwarded, PROXIES) == name


@given(st.lists(st.text(max_size=30), max_size=3), st.ip_addresses(v=4))
def test_what_stands_before_the_first_stranger_makes_no_difference(forged, stranger):
    """Any client behind the proxy may write anything there."""
    name = client_address(NEAR, [str(stranger)], PROXIES)
    if not any(stranger in proxy for proxy in PROXIES):
        assert client_address(NEAR, [*forged, str(stranger)], PROXIES) == name
        assert client_address(NEAR, [",".join([*forged, str(stranger)])], PROXIES) == name


def test_what_is_remembered_of_addresses_is_bounded():
    """A crowd of them takes no memory; the names are the same, remembered or not."""
    for number in range(100_000):
        assert client_address(f"10.{number >> 8 & 255}.0.{number & 255}", (), ()) != "unknown"

    assert addresses._name_of.cache_info().currsize == addresses._parse.cache_info().currsize == 10_000
