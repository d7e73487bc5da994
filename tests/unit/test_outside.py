"""Addresses that a person typed: none leads to this machine, its network or a cloud's metadata."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka import outside
from masuka.config import Settings
from masuka.errors import InvalidInput, RemoteUnavailable
from masuka.hosting import keys
from masuka.studio import Studio

INSIDE = [
    "https://127.0.0.1/", "https://127.0.0.1:8443/v1", "https://127.1.2.3/", "https://0.0.0.0/", "https://0.1.2.3/",
    "https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/", "https://100.64.0.1/", "https://192.0.0.1/", "https://198.18.0.1/",
    "https://192.0.2.7/", "https://224.0.0.1/", "https://240.0.0.1/", "https://255.255.255.255/",
    "https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fc00::1]/", "https://[fd12:3456::1]/",
    "https://[fec0::1]/", "https://[ff02::1]/", "https://[2001:db8::1]/",
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[0:0:0:0:0:ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/", "https://[64:ff9b::127.0.0.1]/", "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::10.0.0.1]/", "https://[2002:7f00:1::]/", "https://[2002:c0a8:101::1]/",
    "https://[2001:0:7f00:1::]/",
    "https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://app.localhost/", "https://ollama/",
    "https://printer.local/", "https://metadata.google.internal/", "https://nas.lan/", "https://router.home.arpa/",
    "https://127.8.9.1/", "https://[::ffff:169.254.169.254]/", "https://[::ffff:8.8.8.8]/", "https://[64:ff9b:1::1]/",
    "https://[2001:0:1:2:3:4:80ff:fffe]/", "https://127.0.0.1./", "https://127.0.0.1#@example.org/", "https://printer/",
    "https://nas.private/", "https://pc.localdomain/", "https://7.0.0.127.in-addr.arpa/", "https://hidden.onion/",
]  # fmt: skip
OPEN = ["http://example.org/", "http://93.184.216.34/"]
"""Outside, but what is sent there can be read on its way."""
UNREADABLE = [
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://127.0.1/", "https://017700000001/", "https://127.0.0.1.5/", "https://0x/", "https://1.2.3.0x4/",
    "https://127.0.0.01/", "https://example.0x7f/", "https://256.256.256.256/",
    "https://user@example.org/", "https://user:pw@example.org/", "https://@example.org/", "https://:@example.org/",
    "https://example.org@127.0.0.1/", "https://127.0.0.1\\@example.org/", "https://example.org\\.evil.example/",
    "https:// example.org/", "https://example.org\t/", "https://exa\nmple.org/", "https://example.org\x00/",
    "https://１２７.0.0.1/", "https://①②⑦.0.0.1/", "https://localhoſt/", "https://example。org/", "https://127。0。0。1/",
    "https://exam%70le.org/", "https://127.0.0.1%2f.example.org/", "https://[::1%25eth0]/", "https://[fe80::1%eth0]/",
    "https://[::1", "https://[127.0.0.1]/", "https://example..org/", "https://-example.org/", "https:///v1", "https:",
    "https://example.org:0/", "https://example.org:99999/", "https://example.org:port/",
    "ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "data:text/plain,x", "//example.org/v1",
    "example.org/v1", "javascript:alert(1)", "unix:/var/run/docker.sock", "https://" + "a" * 3000 + ".org/", "",
    "gopher://127.0.0.1:6379/_x", "https://%31%32%37.0.0.1/", "https://ⓛocalhost/", "https://example.org:80@127.0.0.1/",
    "https://a:b@127.0.0.1/", "https://example.org%40127.0.0.1/", "https://example.org/a b.png",
    "https://example.org/a\r\nHost: evil", "https://example.org/\x00", "https://./a.png", "https://-a.example.org/",
    "https://" + "a" * 64 + ".example.org/", "https://example.org/" + "a" * 4000, "https://example.org/ä.png",
    "https://example.org/?ä", "https://example.org/a<b>", 'https://example.org/"', "https://example.org/{a}|^`",
    "https://example.org../",
]  # fmt: skip
OUTSIDE = [
    "https://example.org", "https://example.org/v1", "https://EXAMPLE.org:8443/v1", "https://example.org./v1",
    "https://93.184.216.34/", "https://[2606:2800:220:1:248:1893:25c8:1946]/", "https://bücher.example/",
    "https://xn--bcher-kva.example/", "https://api_1.example.org/", "https://example.org/@someone", "https://1password.com/",
    "https://[64:ff9b::8.8.8.8]/",
]  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_what_leads_inside_is_refused(text: str) -> None:
    for address in (text, text.replace("https://", "http://")):
        with pytest.raises(InvalidInput, match="not outside"):
            outside.target_of(address, plain=True)
    with pytest.raises(InvalidInput, match="not outside"):
        outside.target_of(text)


@pytest.mark.parametrize("text", [*OPEN, *(text.replace("https://", "http://") for text in INSIDE)])
def test_what_others_could_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not https"):
        outside.target_of(text)


def test_pictures_may_come_openly_from_the_ports_of_the_web() -> None:
    for text in (*OPEN, "http://example.org:8080/a?b=c&d=%20#e", "https://example.org:8443/" + "a" * 3000):
        assert not outside.target_of(text, plain=True).local
    for port in (22, 25, 6379, 11434, 65535):
        for scheme in ("http", "https"):
            with pytest.raises(InvalidInput, match=f"asks for the port {port}"):
                outside.target_of(f"{scheme}://example.org:{port}/a.png", plain=True)


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    for address in (text, text.replace("https://", "http://")):
        for plain in (False, True):
            with pytest.raises(InvalidInput, match="plain to read"):
                outside.target_of(address, plain=plain)


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_leads_outside_is_allowed(text: str) -> None:
    found = outside.target_of(text)
    assert found.scheme == "https" and found.host.isascii() and not found.local


@given(st.text(max_size=40))
def test_any_text_is_allowed_or_refused_in_words(text: str) -> None:
    for address in (text, f"https://{text}/"):
        try:
            found = outside.target_of(address)
        except InvalidInput as error:
            assert error.hint
        else:
            assert found.host.isascii() and ("." in found.host or ":" in found.host)
            assert found.path.isascii() and outside.target_of(found.text) == found


@given(st.ip_addresses())
def test_an_address_is_outside_only_if_it_is_public(address: outside.Address) -> None:
    assert outside.is_outside(address) <= address.is_global


@given(st.ip_addresses(v=4))
def test_an_older_address_is_no_better_in_a_newer_one(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    assert outside.is_outside(f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}") == outside.is_outside(address)
    assert not outside.is_outside(f"::ffff:{address}") and not outside.is_outside(f"::{address}")
    assert outside.is_outside(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1") <= outside.is_outside(address)


class Server(ThreadingHTTPServer):
    """A service inside: it remembers what it was asked, and may send its visitors on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.location = ""
        self.asked: list[tuple[str, str, str]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        headers = self.headers
        self.server.asked.append((self.path, headers.get("host", ""), headers.get("authorization", "")))
        sent_on = self.server.location and self.path == "/go"
        self.send_response(302 if sent_on else 200)
        if sent_on:
            self.send_header("location", self.server.location)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


@pytest.fixture
def secret() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["fe80::1%2"], ["fe80::1%eth0"],
                  ["::ffff:127.0.0.1"], ["::ffff:10.0.0.1"],
                  ["93.184.216.34", "127.0.0.1"], ["2606:2800:220:1::1", "fd00::1"]],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused_before_anything_is_sent(addresses: list[str]) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    asking = outside.client(resolve=lambda host, port: addresses, transport=httpx.MockTransport(answer))
    with asking as client, pytest.raises(InvalidInput, match="not outside"):
        client.get("https://rebound.example/v1")
    assert sent == []


def test_the_name_is_looked_up_once_and_the_address_that_was_looked_at_is_asked() -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    with outside.client(resolve=lambda host, port: next(answers), transport=httpx.MockTransport(answer)) as client:
        client.get("https://rebound.example/v1", headers={"authorization": "Bearer x"})
        with pytest.raises(InvalidInput):
            client.get("https://rebound.example/v1")
    (request,) = sent
    assert (request.url.host, request.headers["host"]) == ("93.184.216.34", "rebound.example")
    assert request.extensions["sni_hostname"] == "rebound.example", "the certificate must be of the name"


def test_the_next_address_is_tried_where_one_does_not_answer(service: Server) -> None:
    """127.0.0.2 has no such listener; both are allowed here by name."""
    local = {f"mine.example:{service.port}"}
    with outside.client(local=local, resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"]) as client:
        assert client.get(f"http://mine.example:{service.port}/v1").status_code == 200
    assert service.asked == [("/v1", f"mine.example:{service.port}", "")]


def test_a_name_that_is_not_there_is_said_in_words() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    for resolve in (nowhere, lambda host, port: []):
        with outside.client(resolve=resolve) as client, pytest.raises(RemoteUnavailable, match="was not found"):
            client.get("https://nowhere.example/")
    with pytest.raises(OSError):
        outside.look_up("nobody.invalid", 443)


def test_a_redirection_leads_no_further_inside(service: Server, secret: Server) -> None:
    local = {f"127.0.0.1:{service.port}"}
    for there in (f"http://127.0.0.1:{secret.port}/", f"http://localhost:{secret.port}/", f"//2130706433:{secret.port}/"):
        service.location = there
        with outside.client(local=local, redirects=5) as client, pytest.raises(InvalidInput):
            client.get(f"http://127.0.0.1:{service.port}/go")
    service.location = "/there"
    with outside.client(local=local, redirects=5) as client:
        assert client.get(f"http://127.0.0.1:{service.port}/go").status_code == 200
    with outside.client(local=local) as client:
        assert client.get(f"http://127.0.0.1:{service.port}/go").status_code == 302
    assert secret.asked == []
    assert [path for path, *_ in service.asked] == ["/go"] * 4 + ["/there"] + ["/go"]


def test_a_key_goes_to_no_other_host(service: Server, secret: Server) -> None:
    service.location = f"http://other.example:{secret.port}/"
    local = {f"mine.example:{service.port}", f"other.example:{secret.port}"}
    with outside.client(local=local, redirects=3, resolve=lambda host, port: ["127.0.0.1"]) as client:
        client.get(f"http://mine.example:{service.port}/go", headers={"authorization": "Bearer canary"})
    assert [told for *_, told in service.asked] == ["Bearer canary"]
    assert [told for *_, told in secret.asked] == [""]


def test_an_endless_chain_ends(service: Server) -> None:
    service.location = "/go"
    with outside.client(local={"127.0.0.1"}, redirects=4) as client, pytest.raises(httpx.TooManyRedirects):
        client.get(f"http://127.0.0.1:{service.port}/go")
    assert len(service.asked) == 5


def test_proxies_of_the_environment_look_nothing_up(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{service.port}")
    with outside.client(resolve=lambda host, port: ["127.0.0.1"]) as client, pytest.raises(InvalidInput):
        client.get("https://rebound.example/")
    assert service.asked == []


def test_what_the_environment_names_is_allowed() -> None:
    names = outside.named("http://localhost:11434/v1", "", "https://[fd00::1]/v1", "192.168.0.7", "ollama:8000")
    assert names == {"localhost:11434", "[fd00::1]:443", "192.168.0.7", "ollama:8000"}
    for text in ("http://localhost:11434/v1", "https://[fd00::1]/v1", "http://192.168.0.7:1/", "http://ollama:8000/"):
        assert outside.target_of(text, local=names).local
    for text in ("http://localhost:11435/v1", "http://localhost/", "https://[fd00::1]:8443/", "http://ollama/"):
        with pytest.raises(InvalidInput):
            outside.target_of(text, local=names)


def test_local_addresses_come_from_the_environment() -> None:
    given = Settings.from_environment({"MASUKA_LOCAL_ADDRESSES": "Localhost:11434, 10.0.0.7 ,[::1]:80"})
    assert given.local_addresses == ("localhost:11434", "10.0.0.7", "[::1]:80")
    for wrong in ("http://localhost", "a b", "localhost:port", "*"):
        with pytest.raises(InvalidInput, match="MASUKA_LOCAL_ADDRESSES"):
            Settings.from_environment({"MASUKA_LOCAL_ADDRESSES": wrong})


@pytest.mark.parametrize("text", [*INSIDE, *OPEN, *(t for t in UNREADABLE if t)])
def test_an_owner_types_no_such_address_for_a_key(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        keys.clean_base_url(text)
    assert refused.value.field == "base_url"


def test_a_name_that_leads_inside_gets_no_key(settings: Settings, service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place = [(2, 1, 6, "", ("127.0.0.1", service.port))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **more: place)
    with Studio.open(settings) as studio:
        studio.preferences.set_key("OPENAI_API_KEY", "anything", base_url=f"https://rebound.example:{service.port}/v1")
        with pytest.raises(InvalidInput, match="not outside"):
            studio.preferences.test_key("OPENAI_API_KEY")
    assert service.asked == []
