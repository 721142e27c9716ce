"""What attackers write: archives, pickles, images and names that try to do more than be data."""

import io
import pickle
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

FORMULAS = ('=HYPERLINK("http://evil.example","x")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "good\r=1+1")
MARKUP = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "'\u2028-->")
TERMINAL = (
    "\x1b[31mred\x1b[0m", "\x1b]0;owned\x07", "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\", "\x9b2J",
    "good\rbad", "\u202egnp.exe", "\u2066a\u2069", "a\x08b",
)  # fmt: skip
SHELL = ("$(touch sprung)", "`touch sprung`", "; touch sprung", "| touch sprung", "& touch sprung &", "x\ntouch sprung")
LEAD_OUT = ("../evil", "a/../../evil", "/tunekit-evil", "..", "a\\..\\..\\evil", "C:/evil", "a\x07b", "./../evil")


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = str(sprung)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.sprung, "w")


def pickles(sprung: Path) -> Iterator[bytes]:
    """Yield files that make `sprung` when unpickled: plain, as torch.save writes them, and as numpy does."""
    import numpy as np
    import torch

    for protocol in (0, 5):
        yield pickle.dumps(Trap(sprung), protocol)
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save({"model": Trap(sprung)}, buffer, _use_new_zipfile_serialization=new)
        yield buffer.getvalue()
    yield object_array(sprung)
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([Trap(sprung)], dtype=object))
    yield buffer.getvalue()


def object_array(sprung: Path) -> bytes:
    """Return a .npy file that makes `sprung` when its pickle is read."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def control_characters(text: str) -> list[str]:
    """Return the characters of a text that a terminal would obey rather than show."""
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]


def archives_with(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, archive) with an entry of a name, behind a harmless one."""
    yield "zip", zipped([("good.txt", b"good"), (_entry(name), b"evil")])
    yield "tar", tarred([_info("good.txt"), _info(name)])


def archives_with_links() -> Iterator[tuple[str, bytes]]:
    """Yield (what it holds, archive): links, pipes and devices, alone and with a file written through them."""
    kinds = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}
    kinds |= {"device": tarfile.CHRTYPE, "block device": tarfile.BLKTYPE}
    for word, kind in kinds.items():
        for target in ("/etc", "../outside", "good.txt"):
            for more in ([], [_info("link/evil")]):
                yield f"tar with a {word} to {target}", tarred([_info("good.txt"), _info("link", kind, target), *more])
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK):
        entries = [(_entry("link", kind | 0o777), b"/etc"), (_entry("link/evil"), b"evil")]
        yield f"zip of mode {kind:o}", zipped(entries)


def archive_bombs() -> Iterator[tuple[str, bytes]]:
    """Yield (what it is, archive): small files that unpack to much."""
    zeros = bytes(24 * 2**20)
    yield "zip", zipped([("zeros", zeros)])
    yield "many", zipped([(f"zeros{number}", zeros[: 2**20]) for number in range(24)])
    for packing in ("gz", "bz2", "xz"):
        yield packing, tarred([_info("zeros", size=len(zeros))], f"w:{packing}", zeros)
    data = zipped([("a", zeros[: 2**20]), ("b", b"x")])
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x01\x02", start + 4)]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 50, 50, len(entry) * 50, start, 0)
    yield "overlapping", data[:start] + entry * 50 + tail
    lying = bytearray(zipped([("a", zeros)]))
    at = lying.index(b"PK\x01\x02") + 24
    lying[at : at + 4] = struct.pack("<L", 10)
    yield "lying", bytes(lying)


def zipped(entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """Return a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(entries: list[tarfile.TarInfo], mode: str = "w", content: bytes = b"evil") -> bytes:
    """Return a tar; every plain file in it has the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return buffer.getvalue()


def safetensors_that_lie(num_bytes: int = 40) -> Iterator[tuple[str, bytes]]:
    """Yield (the lie, file): headers that claim what is not there."""
    whole = f'{{"w":{{"dtype":"F32","shape":[10],"data_offsets":[0,{num_bytes}]}}'
    body = bytes(num_bytes)

    def file(header: str) -> bytes:
        return struct.pack("<Q", len(header)) + header.encode() + body

    for claimed in (100 * 10**9, 2**63, 2**64 - 1, 2**31):
        yield f"a header of {claimed} bytes", struct.pack("<Q", claimed) + f"{whole}}}".encode() + body
    yield "overlapping tensors", file(f'{whole},"v":{{"dtype":"F32","shape":[10],"data_offsets":[0,40]}}}}')
    yield "half overlapping", file(f'{whole},"v":{{"dtype":"F32","shape":[10],"data_offsets":[20,60]}}}}')
    yield "100 GB", file('{"w":{"dtype":"F32","shape":[25000000000],"data_offsets":[0,100000000000]}}')
    yield "a shape that overflows", file('{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,40]}}')
    yield "a negative offset", file('{"w":{"dtype":"F32","shape":[10],"data_offsets":[-40,0]}}')
    yield "an end before its beginning", file('{"w":{"dtype":"F32","shape":[10],"data_offsets":[40,0]}}')
    yield "an unknown type", file('{"w":{"dtype":"OBJ","shape":[10],"data_offsets":[0,40]}}')
    yield "metadata that is no text", file(f'{{"__metadata__":{{"format":[1]}},{whole[1:]}}}')
    yield "deep metadata", file('{"__metadata__":' + "[" * 100_000 + "]" * 100_000 + "}")
    state = "[" * 50_000
    meta = f'"__metadata__":{{"format":"tunekit-1","state":"{state}","about":"{{}}","sha256":"0"}}'
    yield "deep state", file(f"{{{meta},{whole[1:]}}}")
    yield "bytes behind its end", file(f"{whole}}}") + bytes(1000)


def png_of(width: int, height: int) -> bytes:
    """Return a small PNG that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(50))) + chunk(b"IEND", b"")


def _entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr, info.create_system = name, mode << 16, 3
    return info


def _info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 4) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size if kind == tarfile.REGTYPE else 0
    return info
