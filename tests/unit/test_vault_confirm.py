"""Whether a save has arrived: by reading back, by Drive's checksums, or unknown."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from masuka.errors import AccessDenied, RemoteUnavailable
from masuka.vault import saving
from masuka.vault.confirm import (
    DriveChecksums,
    LentToken,
    ReadBack,
    Sent,
    checksum,
    for_folder,
    lend_token,
    on_local_disk,
)
from tests.vault_trials import Machine

MOUNTS = """21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
45 21 0:50 / /content/drive rw,nosuid - fuse.drive drive rw,user_id=0
46 21 0:51 / /content/drive/with\\040space rw - fuse /dev/fuse rw
47 21 0:52 / /data rw - tmpfs tmpfs rw
"""


class Drive(ThreadingHTTPServer):
    """A stand-in for Drive's files.list: knows the files of a folder and one token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.status = 200
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Drive

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)["q"][0]
        self.server.asked.append(query)
        allowed = self.headers["Authorization"] == "Bearer token-of-the-kernel"
        name = query.removeprefix("name = '").partition("' and trashed")[0]
        found = [
            {"md5Checksum": hashlib.md5(f.read_bytes(), usedforsecurity=False).hexdigest()}
            for f in self.server.folder.rglob(name)
        ]
        self.send_response(self.server.status if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"files": found}).encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    server = Drive(tmp_path / "cloud")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_drives_checksums_confirm_a_save(tmp_path: Path, drive: Drive) -> None:
    machine = Machine(tmp_path / "one", tmp_path / "mount")
    machine.saver.confirm = DriveChecksums(lambda: "token-of-the-kernel", base_url=drive.url)
    head = machine.saver.save()
    assert not machine.saver.confirm_written()
    assert machine.local.confirmed_at == "" and machine.local.written_at == head.created_at
    for path in (head.db_path, head.head_path):
        (drive.folder / "db").mkdir(parents=True, exist_ok=True)
        (drive.folder / path).write_bytes((tmp_path / "mount" / path).read_bytes())
    assert machine.saver.confirm_written()
    assert machine.local.confirmed_at == head.created_at
    assert all(query.endswith("' and trashed = false") for query in drive.asked)
    machine.close()


def test_another_content_of_the_same_name_is_not_it(tmp_path: Path, drive: Drive) -> None:
    drive.folder.mkdir()
    (drive.folder / "gen-1.db").write_bytes(b"cut sho")
    asks = DriveChecksums(lambda: "token-of-the-kernel", base_url=drive.url)
    assert not asks.arrived([Sent("gen-1.db", checksum([b"cut short"]))])
    assert asks.arrived([Sent("gen-1.db", checksum([b"cut ", b"sho"]))])


def test_what_drive_answers_is_told(drive: Drive) -> None:
    sent = [Sent("it's.db", "0" * 32)]
    with pytest.raises(AccessDenied):
        DriveChecksums(lambda: "old", base_url=drive.url).arrived(sent)
    drive.status = 500
    asks = DriveChecksums(lambda: "token-of-the-kernel", base_url=drive.url)
    with pytest.raises(RemoteUnavailable, match="500"):
        asks.arrived(sent)
    assert drive.asked[-1].startswith("name = 'it\\'s.db'")
    with pytest.raises(RemoteUnavailable, match="could not be asked"):
        DriveChecksums(lambda: "t", base_url="http://127.0.0.1:9").arrived(sent)
    with pytest.raises(ValueError, match="token"):
        DriveChecksums(lambda: "t", base_url="http://example.org")


def test_only_a_local_disk_proves_by_reading_back(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert not on_local_disk(Path("/content/drive/MyDrive/MASUKA"), mounts=mounts)
    assert not on_local_disk(Path("/content/drive/with space/MASUKA"), mounts=mounts)
    for kind in ("nfs4", "cifs", "9p", "virtiofs", "fuseblk", "fuse.rclone", "something-new"):
        mounts.write_text(f"{MOUNTS}48 21 0:53 / /mnt rw - {kind} x rw\n")
        assert not on_local_disk(Path("/mnt/vault"), mounts=mounts)
    assert on_local_disk(Path("/data/vault"), mounts=mounts)
    assert on_local_disk(Path("/content/elsewhere"), mounts=mounts)
    for cloud in ("Library/CloudStorage/GoogleDrive-a@b.c", "Library/Mobile Documents/com~apple", "Dropbox", "OneDrive - X"):
        assert not on_local_disk(Path("/a", cloud, "vault"), mounts=mounts)
    assert on_local_disk(Path("/x"), mounts=tmp_path / "missing")
    assert not on_local_disk(Path("/Volumes/server/vault"), mounts=tmp_path / "missing")
    assert for_folder(tmp_path, tmp_path / "token").can_tell
    assert not ReadBack(can_tell=False).arrived([])


def test_a_kernel_lends_its_token_to_the_app(tmp_path: Path, drive: Drive) -> None:
    file = tmp_path / "secrets" / "drive-token"
    asks = LentToken(file, base_url=drive.url)
    drive.folder.mkdir()
    (drive.folder / "gen-1.db").write_bytes(b"whole")
    sent = [Sent("gen-1.db", checksum([b"whole"]))]
    assert not asks.can_tell and not asks.arrived(sent) and drive.asked == []
    lend_token(file, "token-of-the-kernel")
    assert file.stat().st_mode & 0o777 == 0o600
    assert asks.can_tell and asks.arrived(sent)
    lend_token(file, "renewed")
    with pytest.raises(AccessDenied):
        asks.arrived(sent)


def test_an_expired_token_holds_up_no_tidying(tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "one", tmp_path / "mount")
    machine.saver.confirm = LentToken(lend_token(tmp_path / "token", "expired"), base_url=drive.url)
    machine.saver.save()
    assert not machine.saver.confirm_written()
    monkeypatch.setattr(saving, "SETTLED_S", 0.0)
    assert machine.saver.confirm_written()
    assert machine.local.sure == 1 and machine.local.confirmed == 0 and machine.local.unconfirmed
    machine.close()
