"""Make the pictures of a report that the documentation shows: python tests/screenshots.py

A real search of the digits, 20 trials of up to 10 epochs, and the top of its report in docs/images: at 1280 and 400 px,
light and dark, and the whole of it once.
"""

import io
import tempfile
from pathlib import Path

from browser import chromium, opened, scroll_through
from PIL import Image

import tunekit

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SIZES = {1280: 1600, 400: 1600}  # px: width and height of what is seen
WHOLE_PX = 700  # the width of the picture of the whole page
MOST_KB = 300


def save(png: bytes, path: Path, width: int | None = None) -> None:
    """Write a screenshot with as many colours as it needs, and no more bytes than it may have."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(64 if width else 128, dither=Image.Dither.NONE).save(path, optimize=True)
    size_kb = path.stat().st_size / 1000
    assert size_kb < MOST_KB, f"{path} has {size_kb:.0f} kB"
    print(f"{path.relative_to(IMAGES.parent.parent)}: {size_kb:.0f} kB")


def take(report: Path) -> None:
    """Take the pictures of a report."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for width, height in SIZES.items():
            for scheme in ("light", "dark"):
                with opened(browser, report, width, height, scheme) as page:
                    scroll_through(page)
                    save(page.screenshot(), IMAGES / f"report-{width}-{scheme}.png")
                    if (width, scheme) == (1280, "light"):
                        save(page.screenshot(full_page=True), IMAGES / "report-whole.png", WHOLE_PX)


def main() -> None:
    """Search, write the report, and take its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        results = tunekit.run("digits", "digits", num_trials=20, max_epochs=10, confirm=3, folder=folder, name="digits")
        results.test()
        take(results.report())


if __name__ == "__main__":
    main()
