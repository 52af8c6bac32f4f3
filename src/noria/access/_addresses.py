"""Addresses that a URL in a request may not reach: loopback, link-local, private and the like (SSRF).

A name is resolved and *every* address it has must be public; the caller then connects to the addresses returned, not to
the name, so that a second look-up (DNS rebinding) decides nothing. Redirects are the caller's to refuse.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from noria.errors import InvalidRequest

__all__ = ["check_public_url"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # a gateway turns such an address into the IPv4 one in its last bits


async def check_public_url(url: str, *, param: str, allow_private: bool = False) -> list[str]:
    """The addresses behind `url`, all public. Raises InvalidRequest naming the address that is not.

    A host without an address has the code `unresolvable_host`.

    `allow_private` only checks the form of the URL (http or https, a host, no user name in it).
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # as of "http://[::1"
        raise InvalidRequest(f"{param} = {url!r} is not a URL.", param=param) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidRequest(f"{param} = {url!r} is not an http(s) URL.", param=param)
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(f"{param} must not carry a user name or password.", param=param)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise InvalidRequest(f"{param} = {url!r} has an impossible port.", param=param) from None
    if allow_private:
        return []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # a host that no name can be is a ValueError
        message = f"{param}: the host {parts.hostname!r} cannot be resolved."
        raise InvalidRequest(message, param=param, code="unresolvable_host") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not _is_public(address):
            raise InvalidRequest(
                f"{param}: {parts.hostname!r} is {address}, which is not a public address.",
                param=param,
                code="private_address",
                hint="Set NORIA_ALLOW_PRIVATE_URLS=true where private endpoints are meant.",
            )
    return addresses


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            ip = embedded
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
