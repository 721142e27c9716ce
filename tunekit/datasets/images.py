"""One image file to pixels, exactly, or the reason why not.

What is never done: dropping alpha, clipping 16 bits to 8, ignoring EXIF rotation, filling up a truncated file. This
file imports nothing of tunekit: the decoding processes run it as a program of its own (see decode_worker.py).
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # nothing rarer: each decoder is a way in
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 50_000_000
SPARE = 2.0  # a JPEG is decoded at no less than twice the size asked for: the `reducing_gap` of Image.thumbnail
GREY_MODES = ("1", "L", "LA")
ORIENTATION = 0x0112  # EXIF tag
PNG_END = b"IEND\xaeB\x60\x82"
BITS_PER_SAMPLE = 258  # TIFF tag


class BadImage(Exception):
    """An image that is refused; its text is the reason."""


def probe(data: bytes) -> dict[str, object]:
    """Return what an image is, from its header: size_px [width, height] upright, is_grey, and notes.

    Args:
        data: the file's bytes.

    Raises:
        BadImage: no image of a format we read, too many pixels, or of a kind that 8 bits cannot hold.
    """
    with _damage_is_bad(), _opened(data) as image:
        width, height = image.size
        # 5 to 8 turn it by a quarter; for TIFF, Pillow has done so in the size
        if image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
        return {"size_px": [width, height], "is_grey": _is_grey(image), "notes": _notes(image, data)}


def decode(
    data: bytes, num_channels: int, image_size: int | None, crop: float = 1.0, cut_bottom_px: int = 0
) -> np.ndarray:
    """Return an image's pixels, uint8 (H, W, num_channels).

    Args:
        data: the file's bytes.
        num_channels: 1 for grey (a colour image is refused), 3 for colour (grey is repeated).
        image_size: px, the side of the square to return; None keeps the image's own size. The shorter side is
            scaled (bilinear, antialiased), the longer one cropped about its centre.
        crop: 0..1, how much of the central square is kept: 224 / 256 for ImageNet's resize to 256 and crop of 224.
        cut_bottom_px: px, cut off below before all else (a logo).

    Raises:
        BadImage: as `probe`, or the file is truncated or damaged.
    """
    with _damage_is_bad(), _opened(data) as image:
        scale = 1 if image_size is None else _draft(image, SPARE * image_size / crop)
        ImageOps.exif_transpose(image, in_place=True)
        pixels = _to_eight_bits(image, grey=num_channels == 1)
    if cut_bottom_px:
        left = pixels.height - math.ceil(cut_bottom_px / scale)
        if left <= 0:
            raise BadImage(f"is {pixels.height * scale} px high, and {cut_bottom_px} px were to be cut off below")
        pixels = pixels.crop((0, 0, pixels.width, left))
    if image_size is not None:
        pixels = _fitted(pixels, image_size, crop)
    array = np.asarray(pixels)
    return array[..., None] if array.ndim == 2 else array


def resize_all(images: np.ndarray, image_size: int | None) -> np.ndarray:
    """Return images (N, H, W, C) as squares of image_size px, or unchanged for None, by the rule of `decode`."""
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    resized = np.empty((len(images), image_size, image_size, images.shape[3]), np.uint8)
    for row, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        resized[row] = np.asarray(_fitted(image, image_size)).reshape(resized.shape[1:])
    return resized


def _draft(image: Image.Image, least: float) -> int:
    """Have a JPEG scaled down as it is decoded, and return by how much: its blocks can be averaged by 2, 4 or 8.

    Its shorter side keeps at least `least` px, and none is left over, so that all stays in its place.
    """
    whole = image.size
    for scale in (8, 4, 2):
        if min(whole) >= scale * least and not any(side % scale for side in whole):
            image.draft(None, (whole[0] // scale, whole[1] // scale))  # no other format can do it
            break
    return whole[0] // image.width


def _fitted(image: Image.Image, image_size: int, crop: float = 1.0) -> Image.Image:
    """Scale the shorter side and crop the longer, in one step: a 1 x 20,000 px strip never becomes a huge image."""
    side = min(image.size) * crop
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)


def _opened(data: bytes) -> Image.Image:
    """Open the first frame and check what the header and the checksums say, before anything is decoded."""
    if not data:
        raise BadImage("is empty (0 bytes)")
    image = _open(data)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"is {width} x {height} px: {width * height:,} pixels, where {MAX_PIXELS:,} are allowed")
    if image.format == "PNG":
        image.verify()  # each chunk's checksum, to the last: the decoder skips those of the pixels. Uses the image up
        if PNG_END not in data:  # the one checksum that verify() leaves out
            raise BadImage("is truncated or damaged (its end is missing)")
        image = _open(data)
    bits = _bits_per_channel(image, data)
    if image.mode in ("I", "F") or (image.mode.startswith("I;16") and bits != 16):
        raise BadImage(f"holds {bits}-bit values (mode {image.mode}) of unknown range: save it with 8 bits per channel")
    if bits == 16 and "transparency" in image.info:
        raise BadImage("has 16 bits per channel and one transparent colour: save it with 8 bits per channel")
    return image


def _bits_per_channel(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]  # the place is fixed by the format
    return int(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))[0])


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"is no image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise BadImage(f"claims too many pixels ({_short(error)}): {MAX_PIXELS:,} are allowed") from None


@contextmanager
def _damage_is_bad() -> Iterator[None]:
    """Turn whatever a decoder raises over a damaged file, which may be anything, into BadImage with its words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns from 89 million pixels on; ours is lower and refuses
            yield
    except BadImage:
        raise
    except MemoryError:
        raise BadImage("needs more memory than one image may take") from None
    except Exception as error:
        raise BadImage(f"is truncated or damaged ({_short(error)})") from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY_MODES or image.mode.startswith("I;16")


def _notes(image: Image.Image, data: bytes) -> list[str]:
    """Say what decoding will change, for people; the same words for the same change, so that they can be counted."""
    notes = []
    if getattr(image, "is_animated", False):
        notes.append("has several frames: the first was taken")
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        notes.append("was turned upright, as its EXIF orientation says")
    if image.has_transparency_data:
        notes.append("has an alpha channel or a transparent colour: it was laid on white")
    if image.mode in ("CMYK", "YCbCr", "LAB"):
        notes.append(f"was converted from {image.mode} to RGB")
    if _bits_per_channel(image, data) == 16:
        notes.append("has 16 bits per channel: the upper 8 were taken")
    return notes


def _to_eight_bits(image: Image.Image, grey: bool) -> Image.Image:
    """Return an image of mode L or RGB that looks the same on white paper."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        # all three channels are one for a grey image, so none of them needs weighting
        return image.getchannel("R") if grey else image.convert("RGB")
    if grey and image.mode not in ("1", "L"):
        raise BadImage(f"is in colour ({image.mode}) where grey was announced: it changed while it was read")
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _short(error: Exception) -> str:
    return str(error).split("\n")[0][:120] or type(error).__name__
