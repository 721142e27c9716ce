"""Files behind a URL: written whole, found again, through outages; and what is said where that cannot be."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3 import GoogleServer

import tunekit
from tunekit.errors import ConfigError, StorageError
from tunekit.storage import HEAD_BYTES, Storage, as_place, joined, parted


@pytest.fixture
def storage(url):
    return Storage(url)


@pytest.fixture(scope="module")
def google():
    with GoogleServer() as server:
        yield server


@pytest.fixture(params=["s3", "gs"])
def either(request, url, google):
    """A folder in a store of each kind; all else that is tested here is the same for them."""
    return Storage(url if request.param == "s3" else google.url(request.node.originalname))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_search_keeps_its_checkpoints_in_googles_storage(google):
    there = google.url("experiments")
    first = tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, name="x", folder=there, verbose=0)
    shutil.rmtree(first.folder)
    again = tunekit.load_results(joined(there, "x"))
    assert again.history.equals(first.history) and again.best_model() is not None


def test_what_is_written_is_read_back_found_copied_and_deleted(either, tmp_path):
    storage = either
    assert storage.read("a/b") is None and storage.sizes() == {}
    storage.write("a/b", b"one")
    big = tmp_path / "big"
    size = 2**24 if storage.url.startswith("s3") else 2**14  # 16 MiB: more than one part; the emulator answers one
    big.write_bytes(bytes(range(256)) * (size // 256))  # request at a time, and hangs where two are needed
    storage.write("a/big", big.read_bytes())
    storage.copy("a/b", "c")
    assert storage.sizes() == {"a/b": 3, "a/big": size, "c": 3}
    assert storage.sizes("a") == {"a/b": 3, "a/big": size} and storage.sizes("nothing") == {}
    storage.get("a/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes() and storage.read("c") == b"one"
    storage.delete(["a/b", "never there"])
    assert storage.read("a/b") is None and storage.read("c") == b"one"
    with pytest.raises(FileNotFoundError):
        storage.get("a/b", tmp_path / "none")


@pytest.mark.long
def test_what_is_replaced_while_it_is_read_is_read_whole(storage, url):
    """S3 tells how long an object is before it tells what it holds, which may be another one's by then."""
    storage.write("now.json", b"{}")
    read = threading.Event()

    def replace():
        other = Storage(url)
        for number in range(10**6):
            if read.is_set():
                return
            other.write("now.json", json.dumps({"long": "x" * (number % 2 * 100)}).encode())
            time.sleep(0.05)  # without it up to a fourth of all reads come cut off, and now and then six on end

    with ThreadPoolExecutor() as pool:
        replacing = pool.submit(replace)
        try:
            whole = [storage.read_json("now.json") for _ in range(150)]  # about seven of them come cut off at first
        finally:
            read.set()
        replacing.result()
    assert all(isinstance(told, dict) for told in whole)


def test_json_that_is_damaged_is_said(storage, monkeypatch):
    monkeypatch.setattr("tunekit.storage.PAUSES_S", (0.01,))
    storage.write("damaged.json", b'{"a": ')
    with pytest.raises(StorageError, match=r"damaged\.json is damaged .*: restore it from a backup"):
        storage.read_json("damaged.json")
    assert storage.read_json("none.json") is None


def test_the_beginning_of_a_file_is_read_alone(storage):
    whole = bytes(range(256)) * 2**16
    storage.write("big", whole)
    assert storage.read_head("big", lambda head: head[255]) == whole[:HEAD_BYTES]
    assert storage.read_head("big", lambda _: 10**6) == whole[: 10**6]
    storage.write("small", b"one")
    assert storage.read_head("small", lambda _: 10**6) == b"one" and storage.read_head("none", len) is None


def test_strange_names_are_names(either):
    storage = either
    names = ["sp ace/ü.txt", "a+b=c&d?.txt", "per%20cent", "'quote\"", "ends.", "x" * 200]
    for name in names:
        storage.write(name, name.encode())
    assert set(storage.sizes()) == set(names)
    assert all(storage.read(name) == name.encode() for name in names)


@pytest.mark.parametrize("mode", ["refuse", pytest.param("hang", marks=pytest.mark.long)])
def test_an_outage_is_waited_for(mode, storage, server):
    storage.write("before", b"1")
    server.proxy.mode = mode
    server.proxy.cut()
    threading.Timer(3, setattr, (server.proxy, "mode", "pass")).start()
    began = time.monotonic()
    storage.write("after", b"2")
    assert time.monotonic() - began > 2
    assert storage.read("before") == b"1" and storage.read("after") == b"2"


@pytest.mark.long
def test_a_name_that_looks_like_a_refusal_is_no_refusal(storage, server):
    server.proxy.mode = "refuse"
    server.proxy.cut()
    threading.Timer(2, setattr, (server.proxy, "mode", "pass")).start()
    storage.write("trials/0403/Forbidden-credentials", b"")
    assert storage.read("trials/0403/Forbidden-credentials") == b""


def test_an_outage_without_end_is_said(url, server):
    storage = Storage(url, patience_s=1)
    server.proxy.mode = "refuse"
    server.proxy.cut()
    with pytest.raises(StorageError, match=r"s3://bucket/.* cannot be used .*: what is there is safe; mend that"):
        storage.write("name", b"")


def test_a_bucket_that_is_not_there_is_said_at_once(url):
    storage = Storage(url.replace("bucket", "bukket"))
    began = time.monotonic()
    with pytest.raises(StorageError, match="s3://bukket/"):
        storage.write("name", b"")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:hunter22@bucket/x", "password would be written down"),
        ("gs://bucket/x?client_secret=hunter22", "password would be written down"),
        ("s3://", "is no place for files: give a path, or a URL that begins with one of file://, s3://"),
        ("https://example.org/data", "is no place for files"),
        ("ftp://example.org/data", "is no place for files"),
        ("s3:///data", "is no place for files"),
    ],
)
def test_urls_that_name_no_place_are_refused(url, words):
    with pytest.raises(ConfigError, match=words) as error:
        as_place(url)
    assert "hunter22" not in str(error.value)


def test_options_of_a_url_are_checked():
    with pytest.raises(ConfigError, match="takes endpoint_override, region, scheme after its '\\?', but not regoin"):
        Storage("s3://bucket/x?regoin=eu-west-1")


def test_places_are_joined_and_parted():
    assert as_place("experiments") == Path("experiments") and as_place("file:///a%20b/c") == Path("/a b/c")
    url = as_place("s3://bucket/a/?region=x")
    assert url == "s3://bucket/a?region=x"
    assert parted(joined(url, "b", "c")) == ("s3://bucket/a/b?region=x", "c")
    assert parted(joined(Path("a"), "b")) == (Path("a"), "b")
