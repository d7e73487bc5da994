"""What stands in for the world outside in tests of links: a public TLS proxy, a house, agents.

Standard library where an agent uses it: agents start often, and as programs of their own.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

MACHINE = re.compile(r".{0,40}//(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]).{0,20}", re.IGNORECASE)
"""An address of this machine, which nobody outside may be sent to."""
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"}


class Server(ThreadingHTTPServer):
    """A server of a thread; `address` is where it listens."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.tls = tls
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        accepted, peer = super().get_request()
        if self.tls is None:
            return accepted, peer
        # The handshake is made by the connection's own thread, at its first read.
        return self.tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), peer

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who leaves in the middle is nothing to print."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Forward(BaseHTTPRequestHandler):
    """Passes each request on as a tunnel's agent does, and streams the answer back."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        upstream = urlsplit(self.server.upstream)
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        headers["x-forwarded-proto"] = "https"
        headers["x-forwarded-for"] = "203.0.113.7"
        self.server.passed.append(f"{self.command} {self.path}")
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=120)
        try:
            connection.request(self.command, self.path, body, headers)
            self._answer(connection.getresponse())
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            connection.close()

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        bodyless = self.command == "HEAD" or answer.status in (204, 304)
        chunked = not bodyless and answer.getheader("content-length") is None
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while not bodyless and (part := answer.read1(65536)):
            self.server.sent_bytes += len(part)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _pass

    def log_message(self, format: str, *args: object) -> None:
        return


class Proxy(Server):
    """A public address with TLS that leads to `upstream`."""

    def __init__(self, upstream: str, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.upstream = upstream
        self.passed: list[str] = []
        self.sent_bytes = 0
        super().__init__(Forward, tls=context)

    def url(self, name: str = "localhost") -> str:
        return f"https://{name}:{self.port}"


class Answer(BaseHTTPRequestHandler):
    """Refuses strangers as the gate does, or lets them in where the house is open."""

    protocol_version = "HTTP/1.1"
    server: House

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.headers.get('host', '')} {self.path}")
        body, status, more = b"{}", self.server.status or 200, {}
        if self.path not in self.server.open and not self.server.status:
            body = json.dumps({"type": "NotAllowed", "message": "Not signed in.", "hint": ""}).encode()
            status = 401
            if self.path == "/":
                status, more = 303, {"location": "/login"}
        self.send_response(status)
        for name, value in {**more, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


class House(Server):
    """An app seen from outside; `open` are paths that let strangers in.

    With `status` it answers that everywhere.
    """

    status = 0

    def __init__(self, *open_paths: str) -> None:
        self.open = set(open_paths)
        self.asked: list[str] = []
        super().__init__(Answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def certificate(folder: Path, *names: str) -> Path:
    """A file with a key and a certificate for these names, its own authority."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names or ("localhost",)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "stand-in.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


class Program:
    """A fake ngrok program of its own folder; it behaves as `mode` says."""

    def __init__(self, folder: Path, mode: str = "ok", *, certificate: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "ngrok"
        self.path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import fake_ngrok\nraise SystemExit(fake_ngrok.main())\n"
        )
        self.path.chmod(0o700)
        self.mode = mode
        if certificate is not None:
            (folder / "certificate").write_text(str(certificate))

    @property
    def mode(self) -> str:
        return self.path.with_name("mode").read_text()

    @mode.setter
    def mode(self, mode: str) -> None:
        self.path.with_name("mode").write_text(mode)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every start, whatever became of it."""
        file = self.path.with_name("calls")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def starts(self) -> list[list[str]]:
        return [call for call in self.calls if call[0] == "start"]

    @property
    def posted(self) -> list[dict[str, object]]:
        """What the app asked the agent for, each with what its settings file said."""
        file = self.path.with_name("posted")
        if not file.exists():
            return []
        found = []
        for line in file.read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found
