"""Downloads from a local server: resumed, checked, unpacked safely, whatever the server can or cannot do."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from audiodiff.data.download import Archive, download, extract, fetch, sha256_of
from audiodiff.errors import InputError

CONTENT = bytes(range(256)) * 9000  # 2.3 MB: several blocks


@dataclass
class Site:
    """What the server does, and what it was asked.

    Attributes:
        content: of every path but /missing and /broken.
        ranges: whether range requests are answered with a part.
        tag: the ETag sent, or None.
        stop_after: bytes of a body after which the connection breaks, for each request in turn.
        length: whether Content-Length is sent.
        asked: the Range header of every request.
    """

    content: bytes = CONTENT
    ranges: bool = True
    tag: str | None = '"one"'
    stop_after: list[int] = field(default_factory=list)
    length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.asked.append(self.headers["Range"])
        if self.path in ("/missing", "/broken"):
            return self.send_error(404 if self.path == "/missing" else 503)
        start, status = 0, 200
        same = self.headers["If-Range"] in (None, site.tag)
        if site.ranges and self.headers["Range"] and same:
            start, status = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
        if start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = site.content[start:]
        self.send_response(status)
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.length:
            self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        self.end_headers()
        self.wfile.write(body[: site.stop_after.pop(0)] if site.stop_after else body)
        return None

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between attempts
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("length", [True, False])
def test_a_file_arrives_whole_with_its_checksum(site, tmp_path, length):
    site.length = length
    path = tmp_path / "deep" / "x.bin"
    assert fetch(f"{site.url}/x", path, None) == sha256(CONTENT) == sha256_of(path)
    assert path.read_bytes() == CONTENT
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["x.bin", "x.bin.sha256.json"]


def test_a_file_that_is_there_is_not_asked_for_again(site, tmp_path):
    for _ in range(2):
        fetch(f"{site.url}/x", tmp_path / "x.bin", sha256(CONTENT))
    assert site.asked == [None]


def test_a_broken_connection_goes_on_where_it_stopped(site, tmp_path):
    site.stop_after = [1_000_000, 500_000]
    fetch(f"{site.url}/x", tmp_path / "x.bin", sha256(CONTENT))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site, tmp_path):
    site.stop_after = [400_000, 1, 1, 1]
    with pytest.raises(InputError, match=r"stopped after 400003 bytes .*run the same command again"):
        fetch(f"{site.url}/x", tmp_path / "x.bin", None)
    assert not (tmp_path / "x.bin").exists()
    fetch(f"{site.url}/x", tmp_path / "x.bin", None)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert site.asked[-1] == "bytes=400003-"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.bin", "x.bin.sha256.json"]


def test_a_server_without_ranges_sends_the_whole_file_again(site, tmp_path):
    site.ranges, site.stop_after = False, [700_000]
    fetch(f"{site.url}/x", tmp_path / "x.bin", sha256(CONTENT))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_not_joined_to_the_old_start(site, tmp_path):
    site.stop_after = [700_000, 0, 0, 0]
    with pytest.raises(InputError):
        fetch(f"{site.url}/x", tmp_path / "x.bin", None)
    site.content, site.tag = CONTENT[::-1], '"two"'
    fetch(f"{site.url}/x", tmp_path / "x.bin", None)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT[::-1]


def test_without_a_tag_or_a_checksum_nothing_is_joined(site, tmp_path):
    site.tag, site.stop_after = None, [700_000]
    fetch(f"{site.url}/x", tmp_path / "x.bin", None)
    assert site.asked == [None, None]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_partial_file_that_is_whole_already_is_kept(site, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    fetch(f"{site.url}/x", tmp_path / "x.bin", sha256(CONTENT))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_real_one_is_fetched_again(site, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT + b"more")
    fetch(f"{site.url}/x", tmp_path / "x.bin", sha256(CONTENT))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_no_file(site, tmp_path):
    wrong = sha256(b"other")
    with pytest.raises(InputError, match=f"SHA256 is {sha256(CONTENT)}, expected {wrong}"):
        fetch(f"{site.url}/x", tmp_path / "x.bin", wrong)
    assert list(tmp_path.iterdir()) == []
    fetch(f"{site.url}/x", tmp_path / "x.bin", sha256(CONTENT).upper())
    with pytest.raises(InputError, match="delete the file"):
        fetch(f"{site.url}/x", tmp_path / "x.bin", wrong)
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        download(Archive("a", f"{site.url}/x", None), tmp_path, "abc")


def test_refusals_and_dead_addresses_are_one_clear_line(site, tmp_path):
    with pytest.raises(InputError, match=r"answers 404 .*--source"):
        fetch(f"{site.url}/missing", tmp_path / "x.bin", None)
    assert len(site.asked) == 1
    with pytest.raises(InputError, match=r"stopped after 0 bytes \(HTTP 503\)"):
        fetch(f"{site.url}/broken", tmp_path / "x.bin", None)
    with pytest.raises(InputError, match="stopped after 0 bytes"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x.bin", None)


def tar(members: dict[str, bytes], mode: str = "w:gz", links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/", b"")
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


MEMBERS = {"top/a.wav": b"a" * 5000, "./top/deep/b.txt": b"b", "top/..c": b"c"}
MAKERS = {
    "x.tar.gz": tar,
    "x.tar.bz2": lambda members: tar(members, "w:bz2"),
    "x.tar": lambda members: tar(members, "w"),
    "x.zip": zipped,
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_is_fetched_checked_and_unpacked_once(name, site, tmp_path):
    site.content = MAKERS[name](MEMBERS)
    archive = Archive("v1", f"{site.url}/{name}", sha256(site.content))
    for _ in range(2):
        done = download(archive, tmp_path)
        assert (done.folder, done.sha256, done.checked) == (tmp_path / "v1", sha256(site.content), True)
        assert files(done.folder) == {"top/a.wav": b"a" * 5000, "top/deep/b.txt": b"b", "top/..c": b"c"}
    assert len(site.asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1", name, f"{name}.sha256.json"]
    assert not download(Archive("v1", archive.url), tmp_path).checked


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "member", ["../evil", "/tmp/evil", "top/../../evil", "C:\\evil", "..\\evil", "c:/evil"]
)
def test_a_member_that_leads_outside_is_refused_and_nothing_is_left(name, member, tmp_path):
    (tmp_path / name).write_bytes(MAKERS[name]({"top/a": b"a", member: b"evil"}))
    with pytest.raises(InputError, match="outside its folder"):
        extract(tmp_path / name, tmp_path / "v1")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_are_refused(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(tar({"top/a": b"a"}, links=("top/link",)))
    with pytest.raises(InputError, match=r"top/link is no plain file"):
        extract(tmp_path / "x.tar.gz", tmp_path / "v1")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_archive_is_an_error_and_nothing_is_left(name, tmp_path):
    noise = hashlib.shake_256(b"seed").digest(100_000)
    whole = MAKERS[name]({"top/a": noise, "top/b": noise})
    for content in (whole[: len(whole) // 2], b"<html>not found</html>", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="damaged archive"):
            extract(tmp_path / name, tmp_path / "v1")
        assert [path.name for path in tmp_path.iterdir()] == [name]
