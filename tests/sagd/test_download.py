"""Files that are fetched arrive whole, or not at all, and say what to do then. The server is real, and on localhost."""

import contextlib
import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from sagd import InputError
from sagd.runtime import download
from sagd.runtime.download import fetch

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves CONTENT; ``cuts`` are the numbers of bytes after which the next connections break off."""

    def __init__(self):
        self.cuts, self.status, self.ranges, self.seen = [], 200, True, []
        self.content, self.answer, self.headers, self.length = CONTENT, 200, {}, True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                outer.seen.append(asked)
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and outer.ranges else 0
                if start >= len(CONTENT):
                    self.send_error(416)
                    return
                self.send_response(206 if start else outer.answer)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                if outer.length:
                    self.send_header("Content-Length", str(len(outer.content) - start))
                self.end_headers()
                end = start + outer.cuts.pop(0) if outer.cuts else len(outer.content)
                with contextlib.suppress(ConnectionError):  # who fetches may have had enough
                    self.wfile.write(outer.content[start:end])

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/weights.pt"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    server = Server()
    yield server
    server.close()


def test_a_file_is_fetched_once(server, tmp_path):
    path = tmp_path / "cache" / "weights.pt"
    for _ in range(2):
        assert fetch(server.url, path, SHA256).read_bytes() == CONTENT
    assert len(server.seen) == 1
    assert [p.name for p in path.parent.iterdir()] == ["weights.pt"]


def test_a_cut_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.cuts = [1_000_000, 2_500_000]
    assert fetch(server.url, tmp_path / "w", SHA256).read_bytes() == CONTENT
    assert server.seen == [None, "bytes=1000000-", "bytes=3500000-"]


def test_a_server_that_is_gone_leaves_what_came_for_the_next_process(server, tmp_path):
    server.cuts = [1_000_000, 0]
    with pytest.raises(InputError, match=r"ended after 1000000 of 5120000 bytes; try again, or put the file"):
        fetch(server.url, tmp_path / "w", SHA256)
    assert not (tmp_path / "w").exists()
    assert fetch(server.url, tmp_path / "w", SHA256).read_bytes() == CONTENT
    assert server.seen[-1] == "bytes=1000000-"


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.cuts, server.ranges = [1_000_000], False
    assert fetch(server.url, tmp_path / "w", SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", CONTENT[:-1] + b"x", CONTENT + b"more", CONTENT])
def test_what_an_earlier_process_left_is_used_or_thrown_away(server, tmp_path, left):
    (tmp_path / "w.part").write_bytes(left)
    assert fetch(server.url, tmp_path / "w", SHA256).read_bytes() == CONTENT


def test_other_bytes_than_expected_are_not_kept(server, tmp_path):
    with pytest.raises(
        InputError, match=rf"gave another file than expected \(SHA-256 {SHA256}\).*put the file with"
    ) as e:
        fetch(server.url, tmp_path / "w", "0" * 64)
    assert "\n" not in str(e.value)
    assert [file.name for file in tmp_path.iterdir()] == [".w.lock"]


def test_a_refusal_says_what_to_put_where(server, tmp_path):
    server.status = 403
    with pytest.raises(InputError, match=rf"403.*put the file with SHA-256 {SHA256} at {tmp_path}/w"):
        fetch(server.url, tmp_path / "w", SHA256)


def test_no_network_says_what_to_put_where(server, tmp_path):
    server.close()
    with pytest.raises(InputError, match=rf"refused.*put the file with SHA-256 {SHA256} at {tmp_path}/w"):
        fetch(server.url, tmp_path / "w", SHA256)


def test_a_file_put_there_by_hand_is_checked_and_never_removed(server, tmp_path):
    (tmp_path / "w").write_bytes(b"half of it")
    with pytest.raises(InputError, match="is another file"):
        fetch(server.url, tmp_path / "w", SHA256)
    assert (tmp_path / "w").read_bytes() == b"half of it"
    (tmp_path / "w").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "w", SHA256)
    assert server.seen == []


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=f"cannot write {tmp_path}/file/w"):
        fetch(server.url, tmp_path / "file" / "w", SHA256)


def test_two_at_once_fetch_once(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(server.url, tmp_path / "w", SHA256)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert len(server.seen) == 1


def test_a_server_that_drips_is_given_up(server, tmp_path):
    """A byte a connection: five are enough; what came is kept."""
    server.cuts = [1] * 1000
    with pytest.raises(InputError, match=r"ended after \d+ of 5120000 bytes|cannot fetch"):
        fetch(server.url, tmp_path / "w", SHA256)
    assert len(server.seen) == download.BREAKS + 1
    assert (tmp_path / "w.part").stat().st_size == download.BREAKS + 1


@pytest.mark.parametrize("length", [True, False])
def test_no_more_is_taken_than_is_expected(server, tmp_path, length):
    server.length = length
    with pytest.raises(InputError, match=r"has 5 MB; 1 MB are expected|gives more than the 1 MB expected") as failure:
        fetch(server.url, tmp_path / "w", SHA256, size=1e6)
    assert "\n" not in str(failure.value) and (tmp_path / "w.part").stat().st_size <= 1.2e6
    assert fetch(server.url, tmp_path / "w", SHA256, size=5e6).read_bytes() == CONTENT


def test_a_disk_that_is_too_small_is_told_before_it_is_full(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda place: type("Disk", (), {"free": 10_000}))
    with pytest.raises(InputError, match=r"has 5 MB; 10 kB are free"):
        fetch(server.url, tmp_path / "w", SHA256)


@pytest.mark.parametrize(
    ("answer", "headers", "says"),
    [
        (204, {}, "answered 204 No Content, without the file"),
        (200, {"Content-Type": "text/html"}, "gave a web page in place of the file"),
        (302, {"Location": "ftp://127.0.0.1/weights"}, "it leads to ftp://127.0.0.1/weights"),
        (302, {"Location": "file:///etc/passwd"}, "url .file:///etc/passwd. is not allowed"),
    ],
)
def test_what_is_no_file_is_told(server, tmp_path, answer, headers, says):
    server.answer, server.headers = answer, headers
    with pytest.raises(InputError, match=says) as failure:
        fetch(server.url, tmp_path / "w", SHA256)
    assert "\n" not in str(failure.value) and not (tmp_path / "w").exists()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/w", "file:///etc/passwd", "data:text/plain,x"])
def test_other_addresses_than_those_of_the_web_are_refused(tmp_path, url):
    with pytest.raises(InputError, match="unknown url type"):
        fetch(url, tmp_path / "w", SHA256)


def packed() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", CONTENT[:5000])
    return content.getvalue()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("damage", ["page", "cut", "none"])
def test_an_archive_without_a_published_sum_is_one_or_is_not_kept(server, tmp_path, damage, length):
    server.length = length
    server.content = {"page": b"<html>quota</html>", "cut": packed()[:-30], "none": packed()}[damage]
    if damage == "none":
        assert fetch(server.url, tmp_path / "w.zip", None).read_bytes() == server.content
        return
    with pytest.raises(InputError, match=r"gave no whole zip file, so what came was removed; put the file at"):
        fetch(server.url, tmp_path / "w.zip", None)
    assert [file.name for file in tmp_path.iterdir()] == [".w.zip.lock"]
