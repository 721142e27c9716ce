"""Downloads from a real server on this machine that breaks in every way we could think of."""

import fcntl
import http.server
import json
import os
import re
import socket
import threading
import zipfile
from collections.abc import Iterator

import pytest

from tunekit.datasets.download import fetch
from tunekit.datasets.placepulse import fetch_placepulse
from tunekit.errors import DataError

DATA = os.urandom(3_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data` as `server.ways` says, one way a request, the last one for ever."""

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        way = server.ways[min(len(server.requests), len(server.ways)) - 1]
        if isinstance(way.get("status"), int):
            self.send_response(way["status"])
            self.send_header("Location", way.get("location", ""))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, tag = server.data, way.get("tag", '"one"')
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, tag)
        start = int(asked[1]) if asked and same and not way.get("no_ranges") else 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            first = way.get("shifted", 0) + start
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if tag:
            self.send_header("ETag", tag)
        if not way.get("no_length"):
            self.send_header("Content-Length", str(way.get("length", len(data) - start)))
        self.send_header("Content-Type", way.get("type", "application/zip"))
        self.end_headers()
        self.wfile.write(data[start : way.get("cut_at", len(data))])
        if way.get("hang"):
            self.wfile.flush()
            server.release.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    """A server on loopback; `server.ways` is what it does, request by request."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.data, made.ways, made.requests, made.release = DATA, [{}], [], threading.Event()
    made.url = f"http://127.0.0.1:{made.server_port}/place-pulse-2.0.zip?dl=1"
    made.handle_error = lambda *_: None  # a client that hangs up is what is tested
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.release.set()
    made.shutdown()
    made.server_close()
    thread.join()


def get(server, folder, **options):
    return fetch(server.url, folder / "a.zip", **{"wait_s": 0.01, "timeout_s": 5, **options})


def test_a_file_comes_whole_and_is_not_fetched_again(server, tmp_path):
    assert get(server, tmp_path).read_bytes() == DATA
    assert get(server, tmp_path).read_bytes() == DATA and len(server.requests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.ways = [{"cut_at": 1_000_000}, {"cut_at": 2_500_000}, {}]
    assert get(server, tmp_path).read_bytes() == DATA
    assert [request.get("Range") for request in server.requests] == [None, "bytes=1000000-", "bytes=2500000-"]
    assert {request.get("If-Range") for request in server.requests[1:]} == {'"one"'}


def test_it_goes_on_in_another_call(server, tmp_path):
    server.ways = [{"cut_at": 1_000_000}, {"status": 503}]
    with pytest.raises(DataError, match=r"503.*1,000,000 bytes are kept, and the same call goes on"):
        get(server, tmp_path, attempts=3)
    server.ways = [{}]
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.requests[-1]["Range"] == "bytes=1000000-"


def test_without_a_version_it_goes_on_by_the_length(server, tmp_path):
    server.ways = [{"cut_at": 1_000_000, "tag": ""}, {"tag": ""}]
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.requests[1]["Range"] == "bytes=1000000-" and "If-Range" not in server.requests[1]


@pytest.mark.parametrize(
    "second",
    [{"tag": '"two"'}, {"no_ranges": True}, {"shifted": 7}, {"status": 500}],
    ids=["another version", "no ranges", "another part", "server error"],
)
def test_two_versions_are_never_joined(server, tmp_path, second):
    server.ways = [{"cut_at": 1_000_000}, second, {}]
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_file_that_changed_its_length_in_between(server, tmp_path):
    server.ways = [{"cut_at": 1_000_000, "tag": ""}, {"status": 503}]
    with pytest.raises(DataError):
        get(server, tmp_path, attempts=2)
    server.ways, server.data = [{"tag": ""}], DATA[::-1][:2_000_000]
    assert get(server, tmp_path).read_bytes() == server.data


def test_a_whole_part_is_not_asked_for_twice(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(DATA)
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"url": server.url, "version": '"one"', "total": len(DATA)}))
    assert get(server, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("about", ["", "[]", '{"url": "http://elsewhere/"}'])
def test_a_part_of_unknown_origin_is_not_built_upon(server, tmp_path, about):
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    (tmp_path / "a.zip.part.json").write_text(about)
    assert get(server, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("way", [{"length": 2_000_000}, {"length": 5_000_000}], ids=["too short", "too long"])
def test_a_wrong_length_is_no_success(server, tmp_path, way):
    server.ways = [way | {"no_ranges": True}]
    if way["length"] < len(DATA):  # HTTP takes what was announced: the zip's own checksums are for that
        assert get(server, tmp_path).stat().st_size == 2_000_000
    else:
        with pytest.raises(DataError, match="could not be fetched in 3 attempts"):
            get(server, tmp_path, attempts=3)
        assert not (tmp_path / "a.zip").exists()


def test_a_server_that_falls_silent(server, tmp_path):
    server.ways = [{"cut_at": 1_000_000, "hang": True}, {}]
    assert get(server, tmp_path, timeout_s=0.3).read_bytes() == DATA


def test_a_server_that_names_no_length(server, tmp_path):
    server.ways = [{"no_length": True}]
    assert get(server, tmp_path).read_bytes() == DATA


def test_attempts_are_bounded_and_progress_resets_them(server, tmp_path):
    server.ways = [{"cut_at": 100}]
    with pytest.raises(DataError, match="in 4 attempts"):
        get(server, tmp_path, attempts=4)
    assert len(server.requests) <= 6
    server.data = os.urandom(9 * 2**20)
    server.requests.clear()
    server.ways = [{"cut_at": 2**20 * number + 1, "tag": '"new"'} for number in range(1, 9)] + [{"tag": '"new"'}]
    assert get(server, tmp_path, attempts=2).read_bytes() == server.data


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (410, 1), (429, 3), (502, 3)])
def test_only_what_may_pass_is_tried_again(server, tmp_path, status, requests):
    server.ways = [{"status": status}]
    with pytest.raises(DataError, match=str(status)):
        get(server, tmp_path, attempts=3)
    assert len(server.requests) == requests


def test_a_web_page_is_no_file(server, tmp_path):
    server.ways = [{"type": "text/html; charset=utf-8"}]
    with pytest.raises(DataError, match="a web page instead of a file"):
        get(server, tmp_path)


def test_a_redirect_is_followed_over_http_only(server, tmp_path):
    server.ways = [{"status": 302, "location": "/elsewhere"}, {}]
    assert get(server, tmp_path).read_bytes() == DATA
    (tmp_path / "a.zip").unlink()
    server.requests.clear()
    server.ways = [{"status": 302, "location": "file:///etc/passwd"}]
    with pytest.raises(DataError):
        get(server, tmp_path, attempts=2)
    with pytest.raises(DataError, match="http or https"):
        fetch("file:///etc/passwd", tmp_path / "b")


def test_too_much(server, tmp_path):
    with pytest.raises(DataError, match="3,000,000 bytes, where 1,000 are allowed"):
        get(server, tmp_path, max_bytes=1000)
    server.ways = [{"no_length": True}]
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        get(server, tmp_path, max_bytes=1000)


def test_two_at_once(server, tmp_path):
    with open(tmp_path / "a.zip.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            get(server, tmp_path)


def test_no_network_says_where_to_put_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tunekit.datasets.download.time.sleep", lambda _: None)  # the waits, not the network
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
    with pytest.raises(DataError) as caught:
        fetch_placepulse(tmp_path / "data", url)
    text = str(caught.value)
    assert not list((tmp_path / "data").iterdir())
    assert "Connection refused" in text and f"unpack it into {tmp_path}/data/place-pulse-2.0" in text and url in text


@pytest.mark.parametrize("prefix", ["", "place-pulse-2.0/"])
def test_place_pulse_is_fetched_and_unpacked(server, tmp_path, prefix):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
        made.writestr(f"{prefix}qscores.tsv", "\tlocation_id\tstudy_id\ttrueskill.score\n")
        made.writestr(f"{prefix}images/1.0_2.0_aa_City.JPG", DATA)
        made.writestr("__MACOSX/images/._1.0_2.0_aa_City.JPG", b"a Mac's")
    server.data = (tmp_path / "made.zip").read_bytes()
    server.ways = [{"cut_at": 1_500_000}, {}]
    for data_dir in (tmp_path / "data", tmp_path / "data/place-pulse-2.0"):
        folder = fetch_placepulse(data_dir, server.url)
        assert folder == tmp_path / "data/place-pulse-2.0" and len(server.requests) == 2
    assert sorted(path.name for path in folder.rglob("*")) == ["1.0_2.0_aa_City.JPG", "images", "qscores.tsv"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["place-pulse-2.0"]


def test_what_came_is_not_place_pulse(server, tmp_path):
    server.data = b"PK\x03\x04 and nonsense"
    with pytest.raises(DataError, match=r"(?s)damaged.*remove it to have it fetched again"):
        fetch_placepulse(tmp_path, server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["place-pulse-2.0.zip"]
