"""Makes bad and odd image files, and says of each what must come of it: these very pixels, or this reason.

Every readable image is 24 x 16 px upright, so that one dataset holds them all and nothing is resized. The expected
pixels are worked out here, from the arrays that went in, not by the code under test.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 16, 24


@dataclass(frozen=True)
class Case:
    """A file and what must come of it.

    Args:
        family: what kind of oddity it is.
        name: the file's name.
        data: the file's bytes.
        pixels: uint8 (16, 24, 3), what it must be read as; None when it must be refused.
        reason: a pattern that the reason of the refusal must match.
        note: what the dataset's notes must say of it.
    """

    family: str
    name: str
    data: bytes
    pixels: np.ndarray | None = None
    reason: str = ""
    note: str = ""


def cases() -> list[Case]:
    """Return all cases of single files; each is made from other random pixels, so that none is a copy of another."""
    random = np.random.default_rng(0)
    families = [
        truncated, empty, no_image, png_bit_flips, sixteen_bit, deep_values, cmyk, palette, transparent, grey,
        rotated, animated, bombs, extensions, odd_names, foreign,
    ]  # fmt: skip
    return [case for family in families for case in family(random)]


def truncated(random: np.random.Generator) -> Iterator[Case]:
    """Files cut at 10 to 99 %, and short of their last two bytes (which a GIF does not need: its pixels are whole)."""
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        for percent in (*range(10, 100, 9), 100):
            image = photo(random).convert("L") if kind == "gif" else photo(random)
            data = saved(image, kind)
            cut = data[:-2] if percent == 100 else data[: len(data) * percent // 100]
            whole = np.asarray(image)[..., None].repeat(3, axis=2) if kind == "gif" and percent == 100 else None
            yield Case("truncated", f"cut-{percent}.{kind}", cut, whole, reason="damaged|no image")


def empty(random: np.random.Generator) -> Iterator[Case]:
    """Files of no bytes."""
    for extension in ("jpg", "png", "gif", "tif", "bmp", "webp"):
        yield Case("empty", f"empty.{extension}", b"", reason="empty")


def no_image(random: np.random.Generator) -> Iterator[Case]:
    """Text, HTML, PDF, a ZIP, noise and pickles under an image's name."""
    starts = [
        b"hello\n",
        b"<!DOCTYPE html><html>404</html>",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\x80\x04\x95",
        b"\x00" * 64,
    ]
    for number, start in enumerate(starts):
        for extension in ("jpg", "PNG", "tiff"):
            data = start + random.bytes(200)
            yield Case("no image", f"text-{number}.{extension}", data, reason="is no image")


def png_bit_flips(random: np.random.Generator) -> Iterator[Case]:
    """One flipped bit in a PNG; a checksum tells."""
    for number in range(100):
        data = bytearray(saved(photo(random), "png"))
        place = int(random.integers(0, len(data) - 8))  # not in the last chunk, which holds nothing
        data[place] ^= 1 << int(random.integers(8))
        yield Case("PNG bit flip", f"flip-{number}.png", bytes(data), reason="i")


def sixteen_bit(random: np.random.Generator) -> Iterator[Case]:
    """16 bits per channel: the upper 8 are the pixels, in grey and in colour."""
    for number in range(10):
        deep = random.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
        if number == 0:
            deep = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 170  # a ramp over all levels
        buffer = io.BytesIO()
        Image.fromarray(deep).save(buffer, "tiff" if number % 2 else "png")
        pixels = (deep // 256).astype(np.uint8)[..., None].repeat(3, axis=2)
        extension = "tif" if number % 2 else "png"
        yield Case("16-bit", f"grey16-{number}.{extension}", buffer.getvalue(), pixels, note="16 bits")
        colour = random.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
        yield Case("16-bit", f"rgb16-{number}.png", png16(colour), (colour // 256).astype(np.uint8), note="16 bits")


def deep_values(random: np.random.Generator) -> Iterator[Case]:
    """32-bit values, whole and floating: nobody knows their range."""
    for number in range(5):
        for kind in (np.float32, np.int32):
            values = (random.random((HEIGHT, WIDTH)) * 1000).astype(kind)
            buffer = io.BytesIO()
            Image.fromarray(values).save(buffer, "tiff")
            yield Case("32-bit", f"deep-{number}-{kind.__name__}.tiff", buffer.getvalue(), reason="unknown range")


def cmyk(random: np.random.Generator) -> Iterator[Case]:
    """Four inks, as printers have them."""
    for number in range(10):
        inks = random.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
        kind = "jpeg" if number % 2 else "tiff"
        data = saved(Image.fromarray(inks, "CMYK") if number < 0 else _cmyk(inks), kind)
        inks = np.asarray(Image.open(io.BytesIO(data))).astype(float)  # JPEG changed them
        ideal = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
        yield Case("CMYK", f"cmyk-{number}.{kind}", data, ideal.round().astype(np.uint8), note="CMYK")


def palette(random: np.random.Generator) -> Iterator[Case]:
    """Numbered colours, with and without a transparent one."""
    for number in range(10):
        colours = random.integers(0, 256, (256, 3), dtype=np.uint8)
        indices = random.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
        image = Image.fromarray(indices)
        image.putpalette(colours.tobytes())
        kind = "gif" if number % 2 else "png"
        yield Case("palette", f"palette-{number}.{kind}", saved(image, kind), colours[indices])
        indices = random.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
        image = Image.fromarray(indices)
        image.putpalette(colours.tobytes())
        data = saved(image, kind, transparency=7)
        pixels = np.where(indices[..., None] == 7, 255, colours[indices]).astype(np.uint8)
        yield Case("palette with transparency", f"see-through-{number}.{kind}", data, pixels, note="white")


def transparent(random: np.random.Generator) -> Iterator[Case]:
    """Alpha, in colour and in grey: what is seen on white paper; and one colour declared transparent."""
    for number in range(10):
        rgba = random.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
        rgba[0, :, 3], rgba[1, :, 3] = 0, 255
        alpha = rgba[..., 3:] / 255
        pixels = np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
        yield Case("alpha", f"rgba-{number}.png", saved(Image.fromarray(rgba), "png"), pixels, note="white")
        yield Case(
            "alpha", f"rgba-{number}.tiff", saved(Image.fromarray(rgba[::-1]), "tiff"), pixels[::-1], note="white"
        )
        data = saved(Image.fromarray(rgba[..., [0, 3]]), "png")
        yield Case("grey alpha", f"la-{number}.png", data, pixels[..., [0, 0, 0]], note="white")
        rgb = random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        key = tuple(int(level) for level in rgb[3, 3])
        pixels = np.where((rgb == key).all(axis=2, keepdims=True), 255, rgb).astype(np.uint8)
        data = saved(Image.fromarray(rgb), "png", transparency=key)
        yield Case("colour key", f"key-{number}.png", data, pixels, note="white")


def grey(random: np.random.Generator) -> Iterator[Case]:
    """Grey and black-and-white among colour: the grey in all three channels."""
    for number in range(10):
        level = random.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
        three = level[..., None].repeat(3, axis=2)
        yield Case("grey among colour", f"grey-{number}.png", saved(Image.fromarray(level), "png"), three)
        black = Image.fromarray(level > 127)
        pixels = ((level > 127) * np.uint8(255))[..., None].repeat(3, axis=2)
        kind = ("png", "tiff", "bmp")[number % 3]
        yield Case("1-bit", f"black-{number}.{kind}", saved(black, kind), pixels)


def rotated(random: np.random.Generator) -> Iterator[Case]:
    """All eight EXIF orientations, stored so that upright they are 24 x 16."""
    undo = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }  # fmt: skip
    for kind in ("png", "tiff", "webp"):
        for orientation, turn in undo.items():
            upright = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            exif = Image.Exif()
            exif[0x0112] = orientation
            image = Image.fromarray(np.ascontiguousarray(turn(upright)))
            options = {"lossless": True, "exact": True} if kind == "webp" else {}
            data = saved(image, kind, exif=exif.tobytes() if kind != "tiff" else exif, **options)
            note = "upright" if orientation > 1 else ""
            yield Case("EXIF-rotated", f"turned-{orientation}.{kind}", data, upright, note=note)


def animated(random: np.random.Generator) -> Iterator[Case]:
    """Several frames: the first."""
    for number in range(3):
        for kind in ("gif", "png", "webp", "tiff"):
            frames = [random.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8) for _ in range(3)]
            first, *rest = [Image.fromarray(frame) for frame in frames]
            options = {"lossless": True} if kind == "webp" else {}
            data = saved(first, kind, save_all=True, append_images=rest, **options)
            pixels = frames[0][..., None].repeat(3, axis=2)
            yield Case("animated", f"frames-{number}.{kind}", data, pixels, note="several frames")


def bombs(random: np.random.Generator) -> Iterator[Case]:
    """Small files that claim 60 million to 1.6 thousand million pixels, or none."""
    for number, (width, height) in enumerate([(10_000, 6_000), (10_000, 10_000), (20_000, 10_000), (40_000, 40_000)]):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        png = _PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(random.bytes(50))) + chunk(b"IEND", b"")
        yield Case("bomb", f"bomb-{number}.png", png, reason="pixels")
        bmp = bytearray(saved(photo(random), "bmp"))
        bmp[18:26] = struct.pack("<ii", width, height)
        yield Case("bomb", f"bomb-{number}.bmp", bytes(bmp), reason="pixels")
        gif = bytearray(saved(photo(random).convert("L"), "gif"))
        gif[6:10] = struct.pack("<HH", width, height)
        yield Case("bomb", f"bomb-{number}.gif", bytes(gif), reason="pixels")
    nothing = _PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 16, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    yield Case("bomb", "no-width.png", nothing, reason="i")


def extensions(random: np.random.Generator) -> Iterator[Case]:
    """Upper-case extensions, and extensions of another format: what is in the file counts."""
    for name in ("A.JPG", "B.JPEG", "C.PNG", "D.Png", "E.BMP", "F.TIF", "G.TIFF", "H.GIF"):
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        kind = "bmp" if name[0] == "E" else "png"
        family = "wrong extension" if name[0] in "ABFGH" else "upper-case extension"
        yield Case(family, name, saved(Image.fromarray(pixels), kind), pixels)
        yield Case("wrong extension", "really-png-" + name, saved(Image.fromarray(pixels[::-1]), "png"), pixels[::-1])


def odd_names(random: np.random.Generator) -> Iterator[Case]:
    """Names that are not UTF-8, that begin with a dash, hold a line feed, emoji or right-to-left marks, or are long."""
    names = [os.fsdecode(b"caf\xe9-%d.png" % number) for number in range(10)] + [os.fsdecode(b"\xff\xfe.png")]
    names += [
        "-rf.png",
        "a\nb.png",
        "\N{CAT FACE}.png",
        "\u202egnp.png",
        "x" * 251 + ".png",
        " .png",
        "%s{}.png",
        "'\".png",
    ]
    for name in names:
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        yield Case("odd name", name, saved(Image.fromarray(pixels), "png"), pixels)


def foreign(random: np.random.Generator) -> Iterator[Case]:
    """Formats that are not read, under their own names and under others."""
    for extension, kind in (("ppm", "ppm"), ("tga", "tga"), ("ico", "ico"), ("jp2", "jpeg2000"), ("psd", "ppm")):
        yield Case("foreign format", f"foreign.{extension}", saved(photo(random), kind), reason="not read")
        yield Case("foreign format", f"foreign-{extension}.jpg", saved(photo(random), kind), reason="is no image")
    for extension in ("heic", "avif", "svg", "CR2"):
        yield Case("foreign format", f"foreign.{extension}", random.bytes(100), reason="not read")


def jpeg_bit_flips(random: np.random.Generator) -> Iterator[bytes]:
    """JPEGs with one flipped bit: JPEG has no checksum, so most are read, as what their bytes now say."""
    for _ in range(100):
        data = bytearray(saved(photo(random), "jpeg"))
        data[int(random.integers(2, len(data)))] ^= 1 << int(random.integers(8))
        yield bytes(data)


def photo(random: np.random.Generator) -> Image.Image:
    """Return a random RGB image of 24 x 16 px."""
    return Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image's bytes in a format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """Return a PNG of 16 bits per channel, (H, W, 3), which Pillow cannot write."""
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    return _PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(folder: Path, all_cases: list[Case]) -> None:
    """Write cases into two classes, "a" and "b" by turns; an image's name then tells its class."""
    for number, case in enumerate(all_cases):
        path = folder / "ab"[number % 2] / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.data)


def _cmyk(inks: np.ndarray) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(inks[..., ink])) for ink in range(4)])


_PNG = b"\x89PNG\r\n\x1a\n"
