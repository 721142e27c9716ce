"""Crafted archives: nothing gets out of the folder, budgets hold, and what is refused leaves nothing behind."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager, nullcontext

import pytest

from tunekit.datasets.archive import unpack
from tunekit.errors import DataError

PHOTO = os.urandom(3000)


def make_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    """Write a zip of name -> bytes, or (ZipInfo, bytes) pairs."""
    with zipfile.ZipFile(path, "w", method) as made:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            made.writestr(name, data)
    return path


def make_tar(path, *entries, mode="w", **options):
    """Write a tar of (name, bytes) pairs or TarInfos."""
    with tarfile.open(path, mode, **options) as made:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                made.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                made.addfile(info, io.BytesIO(entry[1]))
    return path


def special(name, kind, link="", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def zip_entry(name, mode=0, **fields):
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr, info.create_system = name, mode << 16, 3
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def snapshot(folder):
    """Every path under a folder with its mode and content."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found.append((str(path), path.lstat().st_mode, hashlib.sha256(repr(content).encode()).hexdigest()))
    return found


@pytest.fixture
def refused(tmp_path):
    """A function that checks that an archive is refused, and that nothing in the parent folder has changed."""
    (tmp_path / "outside.txt").write_text("as it was")

    def check(archive, match, **limits):
        before = snapshot(tmp_path)
        with pytest.raises(DataError, match=match) as caught:
            unpack(archive, tmp_path / "out", **limits)
        assert snapshot(tmp_path) == before
        assert archive.name in str(caught.value)

    return check


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_what_is_sound_is_unpacked_whole(tmp_path, kind):
    files = {"images/a.jpg": PHOTO, "./scores.tsv": b"1\t2\n", "deep/er/empty": b"", "inner.zip": b"PK\x03\x04 stays"}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        make_zip(path, files | {"folder/": b""})
    else:
        mode = "w" if kind == "tar" else f"w:{kind[4:]}"
        make_tar(path, *files.items(), special("folder", tarfile.DIRTYPE, mode=0o000), mode=mode)
    os.umask(old := os.umask(0o077))
    folder = unpack(path, tmp_path / "out")
    os.umask(old)
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        name.removeprefix("./"): data for name, data in files.items()
    }
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    assert modes == {0o644} and stat.S_IMODE((folder / "folder").stat().st_mode) == 0o755
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../evil", "has '..'"),
        ("a/../../evil", "has '..'"),
        ("/tmp/tunekit-evil", "absolute"),
        ("a\\..\\..\\evil", "backslash"),
        ("C:/evil", "drive letter"),
        ("a\x07b", "control character"),
        ("a\nb", "control character"),
        ("/".join(["d"] * 33), "folders deep"),
        ("n" * 256, "more than 255 bytes"),
        ("/".join(["d"] * 4096), "folders deep"),
    ],
)
def test_names_that_could_lead_out_are_refused(tmp_path, refused, kind, name, match):
    path = tmp_path / f"a.{kind}"
    entries = [("good.txt", b"good"), (name, b"evil")]
    if kind == "zip":
        make_zip(path, [(zip_entry(name), data) for name, data in entries])
    else:
        make_tar(path, *entries, format=tarfile.PAX_FORMAT)
    refused(path, match)


def test_a_nul_in_a_name(tmp_path, refused):
    path = make_zip(tmp_path / "a.zip", {"safeXX../evil": b"evil"})
    path.write_bytes(path.read_bytes().replace(b"safeXX", b"safe\0X"))
    refused(path, "control character|'..'")
    info = special("a", tarfile.REGTYPE)
    info.pax_headers = {"path": "safe\0x"}
    refused(make_tar(tmp_path / "a.tar", info, format=tarfile.PAX_FORMAT), "control character")


@pytest.mark.parametrize("data", [b"bad\xff\xfename", b"caf\xe9"])
def test_a_name_that_is_no_utf8(tmp_path, refused, data):
    path = make_tar(tmp_path / "a.tar", ("N" * len(data), b"x"), format=tarfile.USTAR_FORMAT)
    block = bytearray(path.read_bytes())
    block[: len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    path.write_bytes(block)
    refused(path, "not UTF-8")


LINKS = {
    "symlink out": [special("link", tarfile.SYMTYPE, "/tmp")],
    "symlink, then a file through it": [special("link", tarfile.SYMTYPE, "/tmp"), ("link/evil", b"evil")],
    "symlink inside": [("a", b"a"), special("b", tarfile.SYMTYPE, "a")],
    "hardlink out": [special("link", tarfile.LNKTYPE, "../outside.txt")],
    "device": [special("null", tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [special("sda", tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "pipe": [special("pipe", tarfile.FIFOTYPE)],
    "sparse file": [special("sparse", tarfile.GNUTYPE_SPARSE)],
    "realpath overflow (CVE-2025-4517)": [
        special("d" * 247, tarfile.DIRTYPE),
        special("a", tarfile.SYMTYPE, "d" * 247),
        special("a/l", tarfile.SYMTYPE, "../" * 16),
    ],
}


@pytest.mark.parametrize("entries", LINKS.values(), ids=LINKS)
def test_a_tar_with_anything_but_files_and_folders(tmp_path, refused, entries):
    refused(make_tar(tmp_path / "a.tar", *entries), "is a link or another thing")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_zip_with_anything_but_files_and_folders(tmp_path, refused, mode):
    entries = [(zip_entry("link", mode | 0o777), "/tmp"), (zip_entry("link/evil"), b"evil")]
    refused(make_zip(tmp_path / "a.zip", entries), "is a link or another thing")


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("d/a", "D/b"), ("caf\u00e9", "cafe\u0301"), ("a", "a/b"), ("a/b", "a")],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile, while writing it
def test_one_name_for_two_things(tmp_path, refused, kind, first, second):
    entries = [(first, b"1"), (second, b"2")]
    path = tmp_path / f"a.{kind}"
    make_zip(path, entries) if kind == "zip" else make_tar(path, *entries)
    refused(path, "is there twice|in case only")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_stopped_while_it_goes_off(tmp_path, refused, kind, monkeypatch):
    zeros = bytes(24 * 2**20)
    path = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        make_zip(path, {"zeros": zeros})
    else:
        make_tar(path, ("zeros", zeros), mode=f"w:{kind[4:]}")
    written = []
    monkeypatch.setattr("tunekit.datasets.archive.shutil.rmtree", lambda folder, **_: written.append(_clear(folder)))
    refused(path, "may be a bomb")
    assert sum(written) <= 12 * 2**20


def _clear(folder):
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    return size


def test_many_small_bombs_share_one_budget(tmp_path, refused):
    make_zip(tmp_path / "a.zip", {f"zeros{number}": bytes(2**20) for number in range(20)})
    refused(tmp_path / "a.zip", "may be a bomb")


def test_padding_does_not_pay_for_a_bomb(tmp_path, refused):
    """Random bytes behind the bomb make the archive as a whole look harmless."""
    make_zip(tmp_path / "a.zip", {"zeros": bytes(40 * 2**20), "padding": os.urandom(2**20)})
    refused(tmp_path / "a.zip", "may be a bomb")


def test_entries_that_share_their_bytes(tmp_path, refused):
    """Fifield's zip bomb: many names in the directory for one packed file."""
    path = tmp_path / "a.zip"
    make_zip(path, {"a": bytes(2**20), "b": b"x"})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start : data.index(b"PK\x01\x02", start + 4)]
    directory = entry * 50
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 50, 50, len(directory), start, 0)
    assert end > start
    path.write_bytes(data[:start] + directory + tail)
    refused(path, "overlaps another entry")


@pytest.mark.parametrize("claimed", [10, 2**40])
def test_a_zip_that_lies_about_a_size(tmp_path, refused, claimed):
    path = make_zip(tmp_path / "a.zip", {"a": PHOTO}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", min(claimed, 2**32 - 2))
    path.write_bytes(data)
    refused(path, "damaged|were declared|says it unpacks to", max_bytes=2**30)


def test_a_zip_whose_size_and_checksum_lie_together(tmp_path, refused):
    """More bytes come than declared: zipfile cuts them off, and the checksum is of the cut file."""
    path = make_zip(tmp_path / "a.zip", {"a": PHOTO})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", len(PHOTO) + 5)
    path.write_bytes(data)
    refused(path, "were declared|damaged")


def test_budgets(tmp_path, refused):
    files = {f"{number}": os.urandom(1000) for number in range(10)}
    for path in (make_zip(tmp_path / "a.zip", files), make_tar(tmp_path / "a.tar", *files.items())):
        refused(path, "entries", max_files=9)
        refused(path, "allowed", max_bytes=9_999)
        refused(path, "for one file", max_file_bytes=999)
        unpack(path, tmp_path / f"{path.name} out", max_files=10, max_bytes=10_000, max_file_bytes=1000)


@pytest.mark.parametrize("allowed", [10_000, 1_000_000])
def test_entries_are_counted_before_any_is_held(tmp_path, allowed):
    path = tmp_path / "a.zip"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * (allowed + 1)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 0, 0)
    path.write_bytes(b"PK\x03\x04" + bytes(26) + directory + tail)
    with most_memory() if allowed < 10**6 else nullcontext([0]) as most, pytest.raises(DataError, match="lists more"):
        unpack(path, tmp_path / "out", max_files=allowed)
    assert most[0] < 2**20 and [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("opened", [gzip.open, open])
def test_a_tar_header_does_not_fill_the_memory(tmp_path, opened):
    """A PAX record of 40 MB, which packs to a few kilobytes, and the same not packed."""
    record = tarfile.TarInfo("pax")
    record.type, record.size = tarfile.XHDTYPE, 40 * 2**20
    with opened(tmp_path / "a.tar", "wb") as file:
        file.write(record.tobuf(tarfile.USTAR_FORMAT) + bytes(record.size))
    with most_memory() as most, pytest.raises(DataError, match="header of more than"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert most[0] < 5 * 2**20 and [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@contextmanager
def most_memory():
    """Give a list that holds the most bytes that Python had allocated, once the block has ended."""
    found = []
    tracemalloc.start()
    yield found
    found.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()


def test_an_encrypted_zip(tmp_path, refused):
    path = make_zip(tmp_path / "a.zip", {"a": PHOTO})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_cannot_be_read_in_pieces(tmp_path, refused, method):
    refused(make_zip(tmp_path / "a.zip", {"a": bytes(10**6)}, method), "not by deflate")


def test_damage_is_named(tmp_path, refused):
    whole = make_zip(tmp_path / "a.zip", {"a": PHOTO, "b": PHOTO}, zipfile.ZIP_STORED)
    data = whole.read_bytes()
    for number, broken in enumerate((data[:2000], data[:-30], data[:1000] + b"????" + data[1004:])):
        path = tmp_path / f"broken{number}.zip"
        path.write_bytes(broken)
        refused(path, "damaged")
    tar = make_tar(tmp_path / "a.tar", ("a", PHOTO), ("b", PHOTO)).read_bytes()
    for number, broken in enumerate((tar[:3000], tar[:3584] + b"!" * 512 + tar[4096:])):
        path = tmp_path / f"broken{number}.tar"
        path.write_bytes(broken)
        refused(path, "damaged")
    for kind, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        packed = pack(tar)
        for broken in (packed[: len(packed) // 2], packed[:500] + b"\0\1\2\3" + packed[504:]):
            path = tmp_path / f"broken.tar.{kind}"
            path.write_bytes(broken)
            refused(path, "damaged|could not be unpacked")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"PK\x03\x04", zlib.compress(b"x" * 999)])
def test_what_is_no_archive(tmp_path, refused, data):
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    refused(path, "neither a zip nor a tar|damaged")


def test_a_folder_that_is_there_is_left_alone(tmp_path, refused):
    path = make_zip(tmp_path / "a.zip", {"a": PHOTO})
    (tmp_path / "out").symlink_to("/nowhere")
    with pytest.raises(DataError, match="is there already"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_is_a_data_error(tmp_path, seed):
    """Flipped bytes anywhere: sound bytes or DataError, no other error, nothing left behind."""
    import random

    rng = random.Random(seed)
    files = {f"d{number % 3}/{number}": rng.randbytes(rng.randrange(2000)) for number in range(8)}
    path = tmp_path / "a"
    if seed % 3:
        make_zip(path, files)
    else:
        make_tar(path, *files.items(), mode="w:gz" if seed % 2 else "w")
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
    try:
        unpack(path, tmp_path / "out")
    except DataError:
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
