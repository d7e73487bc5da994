"""Links to pictures: which are followed, which are refused and why, what is fetched and kept."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from masuka.datasets import links
from masuka.datasets.links import Web
from masuka.errors import DownloadFailed, InvalidInput, Stop
from masuka.jobs.reporter import EventFile
from masuka.outside import Target, addresses_of, target_of
from tests.unit.test_datasets_intake import picture
from tests.unit.test_outside import INSIDE
from tests.unit.test_outside import OPEN as OTHERS_READ_IT
from tests.unit.test_outside import UNREADABLE as NOT_READABLE

NO_PLACE = "This address leads to this machine or its network, not outside."
UNREADABLE = "The address must be http or https, without a user name, and plain to read."

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


@pytest.mark.parametrize("link", [*INSIDE, *OTHERS_READ_IT, *NOT_READABLE, "http://a.example.com:22/a.png"])
def test_links_that_are_not_followed(link: str, tmp_path: Path) -> None:
    """Every form of address that nothing here asks; pictures alone may come openly."""
    taken: list[Target] = []
    web = Web(lambda place: taken.append(place) or ["127.0.0.1"], _nobody)  # type: ignore[func-returns-value]
    with pytest.raises((InvalidInput, DownloadFailed)) as refused:
        links.fetch(link, tmp_path / "in", web)
    assert refused.value.hint.endswith(".")
    assert bool(taken) == (link in OTHERS_READ_IT)


def _nobody(address: str, port: int, timeout: float) -> socket.socket:
    raise ConnectionRefusedError


@pytest.mark.parametrize("link", TAKEN)
def test_links_that_are_followed(link: str) -> None:
    place = target_of(link, plain=True)
    assert (place.scheme, place.host, place.port, place.path) == TAKEN[link]
    assert target_of(place.text, plain=True) == place
    assert len(addresses_of(place, lambda host, port: ["93.184.215.14"])) == 1


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

    def judge(self, place: Target) -> list[str]:
        self.judged.append(place.host)
        return addresses_of(
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
        ("file:///etc/passwd", UNREADABLE),
        ("http://a@example.com/", UNREADABLE),
        ("//[::1]/a.png", NO_PLACE),
        ("http://0x7f.1/", UNREADABLE),
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
        links._next_link(target_of("https://a.example.com/"), Answer())  # type: ignore[arg-type]


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
        "http://localhost/c": NO_PLACE,
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
