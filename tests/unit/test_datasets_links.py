"""Links to pictures: which are followed, which are refused and why, what is fetched and kept."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.datasets import addresses, links
from masuka.datasets.addresses import Place, is_public, looked_up, place_of, public_addresses
from masuka.datasets.links import Web
from masuka.errors import DownloadFailed, InvalidInput, Stop
from masuka.jobs.reporter import EventFile
from tests.unit.test_datasets_intake import picture

NO_PLACE = "is no public address."
NO_HOST = "The link names no host that can be looked up."
NO_SCHEME = "Only links that begin with https:// or http:// are taken."
NO_LETTERS = "The link holds characters that no address has."
NO_USER = "The link holds a name or password."

REFUSED = {
    # Other schemes
    "ftp://pictures.example.com/a.png": NO_SCHEME,
    "file:///etc/passwd": NO_SCHEME,
    "gopher://127.0.0.1:6379/_x": NO_SCHEME,
    "data:image/png;base64,AAAA": NO_SCHEME,
    "javascript:alert(1)": NO_SCHEME,
    "//pictures.example.com/a.png": NO_SCHEME,
    "pictures.example.com/a.png": NO_SCHEME,
    "": NO_SCHEME,
    # This machine and the network around it, plainly
    "http://127.0.0.1/a.png": NO_PLACE,
    "http://127.8.9.1/a.png": NO_PLACE,
    "http://0.0.0.0/a.png": NO_PLACE,
    "http://10.1.2.3/a.png": NO_PLACE,
    "http://172.16.0.1/a.png": NO_PLACE,
    "http://192.168.1.1/a.png": NO_PLACE,
    "http://100.64.0.1/a.png": NO_PLACE,
    "http://169.254.169.254/latest/meta-data/": NO_PLACE,
    "http://192.0.2.1/a.png": NO_PLACE,
    "http://198.18.0.1/a.png": NO_PLACE,
    "http://224.0.0.1/a.png": NO_PLACE,
    "http://240.0.0.1/a.png": NO_PLACE,
    "http://255.255.255.255/a.png": NO_PLACE,
    "http://[::1]/a.png": NO_PLACE,
    "http://[::]/a.png": NO_PLACE,
    "http://[fe80::1]/a.png": NO_PLACE,
    "http://[fc00::1]/a.png": NO_PLACE,
    "http://[fd12:3456::1]/a.png": NO_PLACE,
    "http://[fec0::1]/a.png": NO_PLACE,
    "http://[ff02::1]/a.png": NO_PLACE,
    "http://[2001:db8::1]/a.png": NO_PLACE,
    # An older address inside a newer one
    "http://[::ffff:127.0.0.1]/a.png": NO_PLACE,
    "http://[::ffff:7f00:1]/a.png": NO_PLACE,
    "http://[::ffff:169.254.169.254]/a.png": NO_PLACE,
    "http://[::127.0.0.1]/a.png": NO_PLACE,
    "http://[64:ff9b::7f00:1]/a.png": NO_PLACE,
    "http://[64:ff9b::a9fe:a9fe]/a.png": NO_PLACE,
    "http://[64:ff9b:1::1]/a.png": NO_PLACE,
    "http://[2002:7f00:1::]/a.png": NO_PLACE,
    "http://[2001:0:1:2:3:4:80ff:fffe]/a.png": NO_PLACE,
    # Numbers in disguise
    "http://2130706433/a.png": NO_HOST,
    "http://0x7f000001/a.png": NO_HOST,
    "http://017700000001/a.png": NO_HOST,
    "http://0177.0.0.1/a.png": NO_HOST,
    "http://0x7f.0.0.1/a.png": NO_HOST,
    "http://127.1/a.png": NO_HOST,
    "http://127.0.1/a.png": NO_HOST,
    "http://127.0.0.1./a.png": NO_PLACE,
    "http://127.0.0.01/a.png": NO_HOST,
    "http://127.0.0.256/a.png": NO_HOST,
    "http://１２７.0.0.1/a.png": NO_PLACE,
    "http://127。0。0。1/a.png": NO_PLACE,
    "http://①②⑦.0.0.1/a.png": NO_PLACE,
    "http://%31%32%37.0.0.1/a.png": NO_HOST,
    # Names of this machine and its neighbours
    "http://localhost/a.png": NO_PLACE,
    "http://LOCALHOST./a.png": NO_PLACE,
    "http://a.localhost/a.png": NO_PLACE,
    "http://ⓛocalhost/a.png": NO_PLACE,
    "http://printer/a.png": NO_PLACE,
    "http://nas.local/a.png": NO_PLACE,
    "http://metadata.google.internal/computeMetadata/v1/": NO_PLACE,
    # Two readings of one link
    "http://user@pictures.example.com/a.png": NO_USER,
    "http://pictures.example.com:80@127.0.0.1/a.png": NO_USER,
    "http://a:b@127.0.0.1/a.png": NO_USER,
    "http://pictures.example.com%40127.0.0.1/a.png": NO_USER,
    "http://127.0.0.1\\@pictures.example.com/a.png": NO_LETTERS,
    "http://pictures.example.com\\.evil.example/a.png": NO_LETTERS,
    "http://pictures.example.com/a b.png": NO_LETTERS,
    "http://pictures.example.com/a\r\nHost: evil": NO_LETTERS,
    "http://pictures.example.com\t/a.png": NO_LETTERS,
    "http://pictures.example.com/\x00": NO_LETTERS,
    "http://127.0.0.1#@pictures.example.com/": NO_PLACE,
    "http://[::1": "The link is no valid address.",
    "http://[fe80::1%25eth0]/a.png": NO_HOST,
    "http://pictures.example.com:notaport/a.png": "The link is no valid address.",
    "http://pictures.example.com:99999/a.png": "The link is no valid address.",
    # Other services than the web
    "http://pictures.example.com:22/a.png": "The link asks for the port 22.",
    "http://pictures.example.com:6379/a.png": "The link asks for the port 6379.",
    "https://pictures.example.com:25/a.png": "The link asks for the port 25.",
    "http:///a.png": NO_HOST,
    "http://./a.png": NO_HOST,
    "http://-a.example.com/a.png": NO_HOST,
    "http://a..example.com/a.png": NO_HOST,
    "http://" + "a" * 64 + ".example.com/": NO_HOST,
    "http://pictures.example.com/" + "a" * 4000: "The link is too long.",
    "https://pictures.example.com/ä.png": "The link holds letters that must be written as %…",
}
TAKEN = {
    "https://pictures.example.com/a.png": ("https", "pictures.example.com", 443, "/a.png"),
    "HTTP://Pictures.Example.COM": ("http", "pictures.example.com", 80, "/"),
    "http://pictures.example.com:8080/a?b=c&d=%20#e": ("http", "pictures.example.com", 8080, "/a?b=c&d=%20"),
    "https://bücher.example/a.png": ("https", "xn--bcher-kva.example", 443, "/a.png"),
    "https://93.184.215.14/a.png": ("https", "93.184.215.14", 443, "/a.png"),
    "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/a.png": (
        "https", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", 443, "/a.png",
    ),
    "https://pictures.example.com./a.png": ("https", "pictures.example.com", 443, "/a.png"),
}  # fmt: skip


def judged(
    link: str, resolve: Callable[[str, int], list[str]] = lambda host, port: ["93.184.215.14"]
) -> list[str]:
    """The addresses that would be connected to."""
    return public_addresses(place_of(link), resolve)


def test_there_are_many_forms() -> None:
    assert len(REFUSED) >= 40


@pytest.mark.parametrize("link", REFUSED)
def test_links_that_are_not_followed(link: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        judged(link)
    assert refused.value.message.endswith(REFUSED[link])
    assert refused.value.hint.endswith(".")


@pytest.mark.parametrize("link", TAKEN)
def test_links_that_are_followed(link: str) -> None:
    place = place_of(link)
    assert (place.scheme, place.host, place.port, place.target) == TAKEN[link]
    assert place_of(place.link) == place
    assert len(judged(link)) == 1


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%eth0"],
        ["169.254.169.254"],
    ],
)
def test_a_name_that_leads_inside_is_not_followed(found: list[str]) -> None:
    with pytest.raises(InvalidInput, match="is no public address"):
        judged("https://pictures.example.com/a.png", lambda host, port: found)


def test_names_that_nobody_knows() -> None:
    with pytest.raises(DownloadFailed, match=r"There is no address for nobody\.invalid\."):
        looked_up("nobody.invalid", 443)
    with pytest.raises(DownloadFailed, match="There is no address"):
        judged("https://pictures.example.com/a.png", lambda host, port: [])


@given(st.text(max_size=60) | st.text("0123456789abcdefx.:[]/@%#", max_size=30).map("http://".__add__))
def test_any_text_is_a_link_or_is_refused(text: str) -> None:
    try:
        place = place_of(text)
    except InvalidInput as error:
        assert error.message and error.hint
        return
    assert place_of(place.link) == place
    assert "@" not in place.host and place.target.isascii()


@given(st.ip_addresses())
def test_whatever_is_public_is_global(address: addresses.Address) -> None:
    inner = addresses._inside(address) if isinstance(address, ipaddress.IPv6Address) else None
    judged_by = inner or address  # what Python says of the outer one differs by version
    if is_public(address):
        assert judged_by.is_global and not judged_by.is_private and not judged_by.is_multicast


@given(st.ip_addresses(v=4))
def test_an_older_address_is_judged_the_same_in_a_newer_one(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for inside in (f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}"):
        assert is_public(ipaddress.ip_address(inside)) == is_public(address)


# Fetching


class Pages(ThreadingHTTPServer):
    """A web of one machine: each path answers as its function says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.pages: dict[str, Callable[[Page], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []


class Page(BaseHTTPRequestHandler):
    """One request."""

    server: Pages

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.pages.get(self.path, lambda page: page.say(404, b"no"))(self)

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answers with status, body and headers (underscores are dashes)."""
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def pages() -> Iterator[Pages]:
    server = Pages()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Way:
    """The way to `pages`: names of example.com are public here, and lead to that machine."""

    def __init__(self, pages: Pages) -> None:
        self.port = pages.server_address[1]
        self.judged: list[str] = []
        self.connected: list[str] = []
        self.web = Web(self.judge, self.connect)

    def judge(self, place: Place) -> list[str]:
        self.judged.append(place.host)
        return public_addresses(
            place, lambda host, port: ["93.184.215.14"] if host.endswith("example.com") else ["10.0.0.1"]
        )

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)


def fetched(pages: Pages, tmp_path: Path, link: str = "http://a.example.com/a.png") -> Path:
    return links.fetch(link, tmp_path / "in", Way(pages).web)


def test_a_picture_is_fetched_by_the_address_that_was_judged(pages: Pages, tmp_path: Path) -> None:
    pages.pages["/x/cat%20one.png?size=2"] = lambda page: page.say(200, picture(1))
    way = Way(pages)
    file = links.fetch("http://a.example.com/x/cat%20one.png?size=2", tmp_path / "in", way.web)
    assert file.name == "cat one.png" and file.read_bytes() == picture(1)
    assert way.judged == ["a.example.com"] and way.connected == ["93.184.215.14"]
    (asked,) = pages.asked
    assert asked[1]["Host"] == "a.example.com" and asked[1]["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(asked[1])


def test_each_redirect_is_judged_again(pages: Pages, tmp_path: Path) -> None:
    pages.pages["/a.png"] = lambda page: page.say(302, Location="/b.png")
    pages.pages["/b.png"] = lambda page: page.say(301, Location="http://cdn.example.com/c.png")
    pages.pages["/c.png"] = lambda page: page.say(200, picture(1))
    way = Way(pages)
    assert links.fetch("http://a.example.com/a.png", tmp_path / "in", way.web).name == "c.png"
    assert way.judged == ["a.example.com", "a.example.com", "cdn.example.com"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("http://127.0.0.1:8080/a.png", NO_PLACE),
        ("http://169.254.169.254/latest/", NO_PLACE),
        ("http://inside.test.example/a.png", NO_PLACE),
        ("file:///etc/passwd", NO_SCHEME),
        ("http://a@example.com/", NO_USER),
        ("//[::1]/a.png", NO_PLACE),
        ("http://0x7f.1/", NO_HOST),
        ("/a.png", "sends on from link to link."),
        ("", "sends on to nowhere."),
    ],
)
def test_redirects_that_lead_astray(pages: Pages, tmp_path: Path, target: str, sentence: str) -> None:
    pages.pages["/a.png"] = lambda page: page.say(307, Location=target)
    with pytest.raises((InvalidInput, DownloadFailed)) as refused:
        fetched(pages, tmp_path)
    assert refused.value.message.endswith(sentence)
    assert not list(tmp_path.rglob("*.png"))


def test_a_redirect_out_of_a_secured_page_is_not_followed() -> None:
    class Answer:
        def getheader(self, name: str) -> str:
            return "http://a.example.com/"

    with pytest.raises(InvalidInput, match="from a secured to an open address"):
        links._next_link(place_of("https://a.example.com/"), Answer())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda page: page.say(403, b"no"), "a.example.com answered 403 instead of a picture."),
        (lambda page: page.say(204), "a.example.com answered 204 instead of a picture."),
        (lambda page: page.say(200, b"x", Content_Length="50000001"), "The file has 50.1 MB."),
        (lambda page: page.say(200, b"x" * 10, Content_Length="20"), "The picture arrived cut off."),
        (lambda page: page.wfile.write(b"SSH-2.0-OpenSSH\r\n"), "a.example.com did not send the picture."),
        (lambda page: page.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200), "a.example.com did not send the picture."),
    ],
)  # fmt: skip
def test_answers_that_are_no_picture(
    pages: Pages, tmp_path: Path, answer: Callable[[Page], None], sentence: str
) -> None:
    pages.pages["/a.png"] = answer
    with pytest.raises((InvalidInput, DownloadFailed)) as refused:
        fetched(pages, tmp_path)
    assert refused.value.message == sentence
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_body_without_end_is_cut(pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LARGEST_BYTES", 100_000)
    pages.pages["/a.png"] = lambda page: page.say(200, b"x" * 300_000, Content_Length="")
    with pytest.raises(InvalidInput, match=r"^The file has"):
        fetched(pages, tmp_path)


def test_a_server_that_drips_is_hung_up(
    pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SECONDS_A_LINK", 0.5)
    over = threading.Event()

    def drip(page: Page) -> None:
        while not over.wait(0.05):
            try:
                page.wfile.write(b"H")
            except OSError:
                return

    pages.pages["/a.png"] = drip
    with pytest.raises(DownloadFailed, match="did not send the picture"):
        fetched(pages, tmp_path)
    over.set()


def test_nobody_there(tmp_path: Path) -> None:
    def connect(address: str, port: int, timeout: float) -> socket.socket:
        raise ConnectionRefusedError

    with pytest.raises(DownloadFailed, match=r"a\.example\.com did not send the picture\."):
        links.fetch("http://a.example.com/", tmp_path, Web(lambda place: ["93.184.215.14"], connect))


class Job:
    """One run of the job, and what it reported."""

    def __init__(self, root: Path, pages: Pages, *lines: str, stop_after: int = -1, token: str = "t") -> None:
        root.mkdir(exist_ok=True)
        file = root / f"events-{len(list(root.glob('events-*')))}.jsonl"

        def stop_reason() -> str | None:
            return "cancel" if 0 <= stop_after <= len(pages.asked) else None

        reporter = EventFile(file, root / "scratch", stop_reason)
        params = {
            "dataset_id": 1, "links": "\n".join(lines), "incoming": str(root / "incoming"), "processes": 0,
            "asked": str(root / "incoming"),
            "folder": str(root / "set"), "known_sha256": [], "trigger_word": "mira7x", "class_word": "robot",
            "caption_template": "a picture of {trigger} {class}", "token": token,
        }  # fmt: skip
        self.stopped = False
        try:
            self.result = links.run(params, reporter, Way(pages).web)
        except Stop:
            self.stopped = True
        finally:
            reporter.close()
        self.events = [json.loads(line) for line in file.read_text().splitlines()]


def test_a_list_of_links_is_taken_in(pages: Pages, tmp_path: Path) -> None:
    pages.pages["/a"] = lambda page: page.say(200, picture(1))
    pages.pages["/b.jpg"] = lambda page: page.say(200, b"<html>log in</html>")
    done = Job(tmp_path, pages, "http://a.example.com/a", "http://a.example.com/b.jpg", "http://localhost/c",
               "http://a.example.com/none")  # fmt: skip
    assert (done.result["added"], done.result["duplicates"]) == (1, 0)
    assert {row["name"]: row["message"] for row in done.result["refused"]} == {
        "b.jpg": "The file is an SVG, HTML or XML text, not a picture.",
        "http://localhost/c": "localhost is no public address.",
        "http://a.example.com/none": "a.example.com answered 404 instead of a picture.",
    }
    assert not (tmp_path / "incoming").exists()
    assert [e["step"] for e in done.events if e["type"] == "progress"][-1] == 2


def test_what_was_fetched_is_not_fetched_again(pages: Pages, tmp_path: Path) -> None:
    for name in "abc":
        pages.pages[f"/{name}"] = lambda page, name=name: page.say(200, picture(ord(name)))  # type: ignore[misc]
    lines = [f"http://a.example.com/{name}" for name in "abc"]
    assert Job(tmp_path, pages, *lines, stop_after=2).stopped
    done = Job(tmp_path, pages, *lines)
    assert done.result["added"] == 3
    # It was stopped while it read the second one.
    assert [path for path, _ in pages.asked] == ["/a", "/b", "/b", "/c"]


def test_no_link_came(pages: Pages, tmp_path: Path) -> None:
    done = Job(tmp_path, pages, "http://a.example.com/none")
    assert done.result["added"] == 0 and len(done.result["refused"]) == 1
