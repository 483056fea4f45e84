"""Where a request comes from, as far as that can be believed."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

UNKNOWN = "unknown"
_LONGEST_HOP = 64
_KEPT = 10_000
_HOST_BITS = 64
"""Of an IPv6 address: whoever has one has all that share the rest with it."""


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The name of where a request comes from: an IPv4 address, or an IPv6 network of 64 bits.

    `peer` is who has connected, `forwarded` the X-Forwarded-For headers in order. What a trusted proxy has added is
    believed, from the last one back to the first address that is not a trusted proxy's; what is no address ends that,
    and stands for the proxy that has passed it on.
    """
    if not forwarded or not trusted:
        return _name_of(peer or "")
    believed = peer or ""
    for hop in _from_the_right(forwarded):
        if not _is_trusted(believed, trusted) or _parsed(hop) is None:
            break
        believed = hop
    return _name_of(believed)


def network(text: str) -> Network:
    """The network, or the one address, that `text` names; IPv4 within IPv6 is IPv4.

    Raises:
        ValueError: it names none.
    """
    named = ip_network(text)
    if isinstance(named, IPv6Network) and named.network_address.ipv4_mapped and named.prefixlen >= _MAPPED_BITS:
        return IPv4Network((named.network_address.ipv4_mapped, named.prefixlen - _MAPPED_BITS))
    return named


_MAPPED_BITS = 96


def _from_the_right(headers: Sequence[str]) -> Iterator[str]:
    for header in reversed(headers):
        rest, comma = header, ","
        while comma:
            rest, comma, hop = rest.rpartition(",")
            yield hop.strip()


def _is_trusted(hop: str, trusted: Sequence[Network]) -> bool:
    address = _parsed(hop)
    return address is not None and any(address in each for each in trusted)


def _parsed(hop: str) -> Address | None:
    """The address, which may come with a port as some proxies send it; None: it is none."""
    return _parse(hop) if len(hop) <= _LONGEST_HOP else None


@lru_cache(_KEPT)
def _parse(hop: str) -> Address | None:
    host = hop[1:].partition("]")[0] if hop.startswith("[") else hop
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(_KEPT)
def _name_of(hop: str) -> str:
    address = _parsed(hop)
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> _HOST_BITS << _HOST_BITS, _HOST_BITS)))
