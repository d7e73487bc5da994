"""Addresses that a person typed: which of them this machine asks, and how.

A person who may type an address must not be able to reach through it what only this
machine can reach: its own services, its network, a cloud's metadata. Every such request
goes through `client`, or connects to what `addresses_of` gives. A name is looked up once,
refused unless each address it has is a public one, and the very address that was looked at
is connected to, so that a name that changes in between gains nothing. Redirections are
requests of their own and are looked at alike.

The names in `local` are excepted, because a language model of one's own (Ollama, vLLM) is
legitimate: the environment gives them, which a visitor of the page cannot. Pictures, for
which no key is sent, may come by plain http (`plain`), from the ports of the web only.

Page and workers ask through this alike, so it knows nothing of either.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx

from masuka.errors import InvalidInput, RemoteUnavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]

DEFAULT_PORTS = {"http": 80, "https": 443}
UNREADABLE = "The address must be http or https, without a user name, and plain to read."
INSIDE = "This address leads to this machine or its network, not outside."
NO_WEB = "The address asks for the port {port}, which is none of the web's."
PLAIN_HINT = "Only what anybody can reach in the public web is fetched."
HINT = "Use an https address that anybody can reach, or name a service of your own in MASUKA_LOCAL_ADDRESSES."
EXAMPLE = "It looks like https://example.org/v1."
WEB_PORTS = frozenset({80, 443, 8000, 8080, 8443})
_LONGEST = 2000
_LONGEST_PLAIN = 4000
"""Links to pictures carry signatures."""
_NO_ADDRESS_HAS = re.compile(r"""[\s\\<>"^`{|}]""")
_OTHER_STOPS = re.compile("[\u3002\uff0e\uff61]")
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
"""The end of a host that some programs read as a number, so as an IPv4 address."""
_NOT_OUTSIDE = frozenset({
    "localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "onion",
})  # fmt: skip
"""Last parts of names that nobody outside has."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The last 32 bits are an IPv4 address (RFC 6052); an IPv6-only network reaches all of IPv4 so."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 addresses that were ever given out (RFC 4291)."""


@dataclass(frozen=True)
class Target:
    """Where an address leads; `host` is small plain ASCII, without brackets.

    `path` is what is asked for there, with its query.
    """

    scheme: str
    host: str
    port: int
    path: str = "/"
    plain: bool = False
    local: bool = False

    @property
    def host_header(self) -> str:
        """The host as a request names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The address again, in its plain form."""
        return f"{self.scheme}://{self.host_header}{self.path}"


def target_of(text: str, *, local: Collection[str] = (), plain: bool = False, field: str = "") -> Target:
    """Where the address leads, by its text alone; no name is looked up.

    `local` are hosts ('localhost', '192.168.0.7:11434'; without a port any) that may be
    asked although they are not outside, and by plain http. `plain` allows http to any
    host, and only the ports of the web: for what is fetched without a key. Raises
    InvalidInput, for `field`, for what is no address, can be read in more than one way or
    is not outside.
    """
    try:
        target = replace(_read(text, _LONGEST_PLAIN if plain else _LONGEST), plain=plain)
    except ValueError as error:
        raise InvalidInput(UNREADABLE, EXAMPLE, field=field) from error
    host, port = target.host, target.port
    if host in local or f"{host}:{port}" in local or f"[{host}]:{port}" in local:
        return replace(target, local=True)
    if target.scheme != "https" and not plain:
        raise InvalidInput("The address is not https: others could read what is sent.", HINT, field=field)
    if not _may_be_outside(host):
        raise _leads_inside(target, field)
    if plain and port not in WEB_PORTS:
        raise InvalidInput(NO_WEB.format(port=port), "Use an address without a port.", field=field)
    return target


def named(*addresses: str) -> frozenset[str]:
    """Hosts as `local` takes them, of whole addresses, or of hosts with a port."""
    found = set()
    for address in filter(None, addresses):
        parts = urlsplit(address if "//" in address else f"//{address}")
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
        host = parts.hostname or ""
        found.add(host if port is None else f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return frozenset(found)


def is_outside(address: str | Address) -> bool:
    """Whether the IP address is a public one, also that which it may carry within."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        within = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        within += [_last_32_bits(found)] if found in _NAT64 else []
        carried = [v4 for v4 in within if v4 is not None]
        given_out = found in _NAT64 or found in _GLOBAL_UNICAST
        return given_out and found.scope_id is None and found.is_global and all(map(is_outside, carried))
    return found.is_global and not (found.is_private or found.is_multicast or found.is_reserved)


def look_up(host: str, port: int) -> list[str]:
    """The addresses of that name, as this machine knows them; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def addresses_of(target: Target, resolve: Resolve | None = None) -> list[str]:
    """Every address of the host, at least one; all may be asked.

    A name is looked up once. Raises InvalidInput when any of them is not outside, for a
    name that leads both ways is a trap; RemoteUnavailable for one that nobody knows.
    """
    try:
        found = [str(ipaddress.ip_address(target.host))]
    except ValueError:
        try:
            found = list((resolve or look_up)(target.host, target.port))
        except (OSError, UnicodeError) as error:
            raise _not_found(target) from error
    if not found:
        raise _not_found(target)
    if not target.local and not all(is_outside(address) for address in found):
        raise _leads_inside(target)
    return found


def client(
    *,
    local: Collection[str] = (),
    timeout_s: float = 10.0,
    redirects: int = 0,
    resolve: Resolve = look_up,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A client that asks only addresses outside, and those in `local`.

    Its requests raise InvalidInput or RemoteUnavailable before anything is sent to an
    address that may not be asked. At most `redirects` redirections are
    followed; a key that was sent with the first request goes to no other host. The
    environment's proxies are not used: they would look the name up once more.
    """
    return httpx.Client(
        transport=Outside(local=local, resolve=resolve, transport=transport),
        timeout=timeout_s, follow_redirects=redirects > 0, max_redirects=max(1, redirects), trust_env=False,
    )  # fmt: skip


class Outside(httpx.BaseTransport):
    """Sends a request to an address that was looked at, under the name asked for."""

    def __init__(
        self, *, local: Collection[str] = (), resolve: Resolve = look_up, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._local = frozenset(name.lower() for name in local)
        self._resolve = resolve
        # Connections are kept by address; another name there has another certificate.
        self._sends = transport or httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of the first of the name's addresses that takes the connection."""
        target = target_of(str(request.url), local=self._local)
        failed: httpx.ConnectError | None = None
        for address in addresses_of(target, self._resolve):
            try:
                return self._sends.handle_request(_sent_to(request, target, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error if isinstance(error, httpx.ConnectError) else httpx.ConnectError(str(error))
        raise failed or httpx.ConnectError(f"{target.host} has no address")

    def close(self) -> None:
        self._sends.close()


def _sent_to(request: httpx.Request, target: Target, address: str) -> httpx.Request:
    headers = httpx.Headers([(name, value) for name, value in request.headers.raw if name.lower() != b"host"])
    headers = httpx.Headers([(b"host", target.host_header.encode()), *headers.raw])
    return httpx.Request(
        request.method, request.url.copy_with(scheme=target.scheme, host=address, port=target.port),
        headers=headers, stream=request.stream, extensions={**request.extensions, "sni_hostname": target.host},
    )  # fmt: skip


def _read(text: str, longest: int) -> Target:
    """The address in its parts; raises ValueError where two programs could read it in two ways."""
    if len(text) > longest or not text.isprintable() or _NO_ADDRESS_HAS.search(text):
        raise ValueError("too long, or unprintable")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error
    written = re.split(r"[/?#]", text.partition("//")[2])[0]
    if not text.partition("//")[2].removeprefix(written).isascii():
        raise ValueError("letters that must be written as %…")
    if url.scheme not in DEFAULT_PORTS or url.userinfo or "@" in written or "%" in written:
        raise ValueError("another scheme, a user name, or an escaped sign")
    # Full-width digits, other full stops and the like become plain ones on their way; no name needs them.
    if unicodedata.normalize("NFKC", written) != written or _OTHER_STOPS.search(written):
        raise ValueError("not normalised")
    port = url.port if url.port is not None else DEFAULT_PORTS[url.scheme]
    if not 0 < port < 65536:
        raise ValueError("no port")
    return Target(url.scheme, _host_of(url), port, url.raw_path.decode("ascii"))


def _host_of(url: httpx.URL) -> str:
    """The host in plain ASCII; raises ValueError where two programs could read it in two ways."""
    host = url.raw_host.decode("ascii").lower()
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    host = host.removesuffix(".")
    if not _NAME.fullmatch(host):
        raise ValueError("no host name")
    return str(ipaddress.IPv4Address(host)) if _NUMBER.fullmatch(host.rpartition(".")[2]) else host


def _may_be_outside(host: str) -> bool:
    """Whether the address is outside, or the name may have such addresses."""
    try:
        return is_outside(host)
    except ValueError:
        return "." in host and host.rpartition(".")[2] not in _NOT_OUTSIDE


def _leads_inside(target: Target, field: str = "") -> InvalidInput:
    return InvalidInput(INSIDE, PLAIN_HINT if target.plain else HINT, field=field)


def _not_found(target: Target) -> RemoteUnavailable:
    return RemoteUnavailable(f"{target.host} was not found.", "Look at the address.")


def _last_32_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
