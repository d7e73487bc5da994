"""Which addresses of the web may be asked: public ones, whatever disguise they come in.

Names are looked up here and each address that comes back is judged; whoever connects does
so to the very address that was judged, so that a name cannot change its mind in between.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from masuka.errors import DownloadFailed, InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
PORTS = {"http": 80, "https": 443}
OTHER_PORTS = frozenset({8000, 8080, 8443})
LONGEST_LINK_CHARS = 4000
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBERLIKE = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.ip_network("::/96")
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")
_LOCAL_NAMES = (
    "localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "arpa",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A link taken apart: where to connect, and what to ask for there."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        """The host as a request names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def link(self) -> str:
        """The address again, in its plain form."""
        return f"{self.scheme}://{self.host_header}{self.target}"


def place_of(link: str) -> Place:
    """The parts of a link; raises InvalidInput for every kind that is not taken.

    Numbers for a host are taken only as plain dotted or bracketed addresses: what other
    programs read into 0x7f.1, 017700000001 or 2130706433 is not guessed.
    """
    if len(link) > LONGEST_LINK_CHARS:
        raise InvalidInput("The link is too long.", f"At most {LONGEST_LINK_CHARS:,} characters are taken.")
    if any(ord(c) <= 32 or ord(c) == 127 or c in '\\<>"^`{|}' for c in link):
        raise InvalidInput("The link holds characters that no address has.", "Copy the link again.")
    try:
        parts = urlsplit(link)
        port = parts.port
    except ValueError:
        raise InvalidInput("The link is no valid address.", "Copy the link again.") from None
    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        raise InvalidInput("Only links that begin with https:// or http:// are taken.", "Copy such a link.")
    if "@" in parts.netloc or "%40" in parts.netloc:
        raise InvalidInput("The link holds a name or password.", "Take it out of the link.")
    if port is not None and port not in (*PORTS.values(), *OTHER_PORTS):
        raise InvalidInput(f"The link asks for the port {port}.", "Use a link without a port.")
    host = _host_of(parts.hostname or "")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii():
        raise InvalidInput("The link holds letters that must be written as %…", "Copy it from the browser.")
    return Place(scheme, host, PORTS[scheme] if port is None else port, target)


def public_addresses(place: Place, resolve: Resolve | None = None) -> list[str]:
    """Every address of the host, each public; raises InvalidInput, DownloadFailed.

    One that is not public refuses all: a name that points both ways is a trap.
    """
    try:
        found = [str(ipaddress.ip_address(place.host))]
    except ValueError:
        found = (resolve or looked_up)(place.host, place.port)
    if not found:
        raise DownloadFailed(f"There is no address for {place.host}.", "Check the link.")
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_public(address):
            raise InvalidInput(
                f"{place.host} is no public address.", "Only pictures of the public web are fetched."
            )
    return found


def looked_up(host: str, port: int) -> list[str]:
    """The addresses of a name as this machine's resolver knows them."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DownloadFailed(f"There is no address for {host}.", "Check the link.") from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_public(address: Address) -> bool:
    """Whether anybody on the internet reaches the same machine there."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return is_public(inner)
        if address in _LOCAL_NAT64 or address in _SITE_LOCAL or address in _COMPATIBLE or address.scope_id:
            return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def _inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The older address that a newer one stands for."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


def _host_of(given: str) -> str:
    """The host in its plain form; raises InvalidInput for one that is none or is local."""
    wrong = InvalidInput("The link names no host that can be looked up.", "Copy the link again.")
    if unquote(given) != given or not given:
        raise wrong
    if ":" in given:
        try:
            address = ipaddress.ip_address(given)
        except ValueError:
            raise wrong from None
        if "%" in given:
            raise wrong
        return str(address)
    try:
        # What looks like digits and dots in other scripts becomes digits and dots here, before it is judged.
        host = given.encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError:
        raise wrong from None
    labels = host.split(".")
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise wrong
    if _NUMBERLIKE.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise wrong from None
    if len(labels) == 1 or labels[-1] in _LOCAL_NAMES:
        raise InvalidInput(f"{host} is no public address.", "Only pictures of the public web are fetched.")
    return host
