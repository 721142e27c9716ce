"""Fetch one large file over a network that breaks: what was fetched is kept, checked, and gone on with."""

import fcntl
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from tunekit.errors import DataError

CHUNK = 2**18
PROGRESS_BYTES = 2**20  # an attempt that brought so much does not count as failed
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
BROKEN = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


def fetch(
    url: str,
    path: Path,
    *,
    attempts: int = 5,
    wait_s: float = 1.0,
    timeout_s: float = 30.0,
    max_bytes: int = 50 * 10**9,
) -> Path:
    """Download a file; one that broke off goes on where it stopped, in another run too.

    What has come lies beside `path` as .part, with the length and the version that the server named in .part.json, so
    that two versions are not joined. `path` appears when its length is the one named.

    Args:
        url: http or https; a redirect from https to http is refused.
        path: where to put it; its folder must be there. A file that is there is left as it is.
        attempts: how many in a row may bring nothing.
        wait_s: seconds before the second attempt; doubled before each further one.
        timeout_s: seconds without a byte after which a connection counts as broken.
        max_bytes: the most that is fetched.

    Returns:
        `path`.

    Raises:
        DataError: no network, the server refuses or sends a web page, the disk is full, or another process is at it.
    """
    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{part} is being written by another process: wait until it is done") from None
        try:
            _insist(url, file, part, attempts, wait_s, timeout_s, max_bytes)
            os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            if not file.tell() or path.exists():
                part.unlink(missing_ok=True)
                _about(part).unlink(missing_ok=True)
    return path


def _insist(
    url: str, file: IO[bytes], part: Path, attempts: int, wait_s: float, timeout_s: float, max_bytes: int
) -> None:
    """Make requests until the file is whole, or so many in a row have brought nothing."""
    failed, most = 0, file.tell()
    while True:
        try:
            if _go_on(url, file, part, timeout_s, max_bytes):
                file.flush()
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code not in RETRY_STATUS:
                raise DataError(f"{url} answered {error.code} {error.reason}") from error
            reason = f"the server answered {error.code} {error.reason}"
        except BROKEN as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failed, most = (0, file.tell()) if file.tell() >= most + PROGRESS_BYTES else (failed + 1, most)
        if failed >= attempts:
            kept = f"; {file.tell():,} bytes are kept, and the same call goes on from there" if file.tell() else ""
            raise DataError(f"{url} could not be fetched in {attempts} attempts ({reason}){kept}")
        time.sleep(wait_s * 2 ** max(failed - 1, 0))


def _go_on(url: str, file: IO[bytes], part: Path, timeout_s: float, max_bytes: int) -> bool:
    """Make one request for what is missing, append what comes, and return whether the file is whole."""
    done, known = file.tell(), _read_about(part, url)
    if done and not known.get("version") and not known.get("total"):
        _start_again(file)  # nothing tells whether the server still has the same file
        done = 0
    headers = {"User-Agent": "tunekit", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-"} | ({"If-Range": known["version"]} if known.get("version") else {})
    try:
        response = _open(urllib.request.Request(url, headers=headers), timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        total = _total(error.headers.get("Content-Range", ""))
        if total == done:
            return True
        _start_again(file)
        return False
    with response:
        total = _begin(response, file, url, known.get("total"), max_bytes)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        version = "" if version.startswith("W/") else version  # a weak one is no promise of the same bytes
        _about(part).write_text(json.dumps({"url": url, "version": version, "total": total}))
        _copy(response, file, total, max_bytes, part.name)
    if total is not None and file.tell() > total:
        _start_again(file)
        raise OSError(f"the server sent more than the {total:,} bytes it had named")
    return total is None or file.tell() == total


def _begin(response: Any, file: IO[bytes], url: str, known_total: int | None, max_bytes: int) -> int | None:
    """Check an answer's head, go to where its bytes belong, and return the length of the whole, if it is named."""
    if response.headers.get_content_type() == "text/html":
        raise DataError(f"{url} gave a web page instead of a file: the link may have moved")
    if response.status == 206:
        content_range = response.headers.get("Content-Range", "")
        start, total = re.match(r"bytes (\d+)-", content_range), _total(content_range)
        if start is None or int(start[1]) != file.tell() or total != known_total:
            _start_again(file)
            raise OSError(f"the server sent another part ({content_range!r}) than the one asked for")
    else:  # the whole, from its beginning: the server knows no ranges, or has another version
        _start_again(file)
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
    if total is not None:
        free = shutil.disk_usage(Path(file.name).parent).free
        if total > max_bytes or total - file.tell() > free:
            raise DataError(f"{url} has {total:,} bytes, where {max_bytes:,} are allowed and {free:,} free on the disk")
    return total


def _copy(response: Any, file: IO[bytes], total: int | None, max_bytes: int, name: str) -> None:
    """Append what comes, with a progress bar on a terminal."""
    columns = "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as progress:
        shown = progress.add_task(name.removesuffix(".part"), total=total, completed=file.tell())
        while chunk := response.read(CHUNK):
            if file.tell() + len(chunk) > max_bytes:
                raise DataError(f"{name}: more than {max_bytes:,} bytes came")
            file.write(chunk)
            progress.update(shown, completed=file.tell())


class _StayOnHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise DataError(f"{req.full_url} leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, timeout_s: float) -> Any:
    if request.type not in ("http", "https"):
        raise DataError(f"a download is over http or https, but this is {request.full_url}")
    return urllib.request.build_opener(_StayOnHttps).open(request, timeout=timeout_s)


def _start_again(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _total(content_range: str) -> int | None:
    """Return the length of the whole in "bytes 0-9/100", or None for "bytes 0-9/*"."""
    found = re.search(r"/(\d+)$", content_range)
    return int(found[1]) if found else None


def _about(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_about(part: Path, url: str) -> dict[str, Any]:
    """Return what is known of a part; nothing, if it was of another address."""
    try:
        known = json.loads(_about(part).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get("url") == url else {}
