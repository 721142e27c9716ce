"""Files in an object store, or on a file system that is known by a URL: s3://bucket/experiments, gs://bucket/data.

The credentials are those that the provider's own tools find (environment, files, the machine's role); a URL that holds
any is refused, for it is written down and shown. Whatever fails for a reason that may pass is tried again for a while.
Only storages that show a file when it is whole are known: S3, Google's, and others that speak their language.
"""

import errno
import functools
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pyarrow import ArrowException, ArrowInvalid, fs

from tunekit.errors import ConfigError, StorageError
from tunekit.safe_text import is_secret

PATIENCE_S = 300.0  # for how long what fails is tried again: an outage of minutes ends no search
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries; the last again and again
REQUEST_S, CONNECT_S = 10.0, 3.0  # of silence, after which a request is given up, and tried again
LONGEST_READ_S, LONGEST_TRY_S = 2 * (REQUEST_S + CONNECT_S), 3 * (REQUEST_S + CONNECT_S)  # of two or three requests
S3_OPTIONS = {"region", "endpoint_override", "scheme"}  # that an s3:// URL may hold after its "?"
KNOWN = ("s3", "gs", "gcs")
HEAD_BYTES, MOST_HEAD_BYTES = 2**16, 2**27  # of a file's beginning: what is read at once, and at the most
GS_PATIENCE = f"retry_limit_seconds={REQUEST_S:g}"
LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # errors of this machine's own disk
# words of errors that no waiting mends, and that stand in no name of ours
LASTS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 403")

Result = TypeVar("Result")


def is_url(place: object) -> bool:
    """Return whether a place is named by a URL, not by a path.

    Example:
        >>> is_url("s3://bucket/experiments"), is_url("experiments")
        (True, False)
    """
    return isinstance(place, str) and "://" in place


def as_place(place: str | Path) -> Path | str:
    """Return a path, where a file:// URL is the path that it names, or the URL without a slash at its end.

    Raises:
        ConfigError: a URL of a kind that is not known, or that holds a password.

    Example:
        >>> as_place("file:///data/mnist"), as_place("s3://bucket/data/")
        (PosixPath('/data/mnist'), 's3://bucket/data')
    """
    if isinstance(place, Path) or not is_url(place):
        return Path(place)
    parts = urlsplit(place)
    named = parts.username not in (None, "anonymous")  # which is how pyarrow is told to use no credentials
    if named or parts.password or any(is_secret(key) for key, _ in parse_qsl(parts.query)):
        raise ConfigError("a URL with a password would be written down: leave that to the provider's own tools")
    if parts.fragment:
        raise ConfigError(f"{place}: '#' ends a URL's path; write it as %23")
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.scheme not in KNOWN or not parts.netloc:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *KNOWN))
        raise ConfigError(f"{place} is no place for files: give a path, or a URL that begins with one of {known}")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/")))


def joined(place: Path | str, *names: str) -> Path | str:
    """Return a place below another one.

    Example:
        >>> joined("s3://bucket/experiments?region=eu-west-1", "first")
        's3://bucket/experiments/first?region=eu-west-1'
    """
    if isinstance(place, Path):
        return place.joinpath(*names)
    parts = urlsplit(place)
    return urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *names])))


def parted(place: Path | str) -> tuple[Path | str, str]:
    """Return the place above one, and its own name.

    Example:
        >>> parted("s3://bucket/experiments/first")
        ('s3://bucket/experiments', 'first')
    """
    if isinstance(place, Path):
        return place.parent, place.name
    parts = urlsplit(place)
    above, _, name = parts.path.rpartition("/")
    return urlunsplit(parts._replace(path=above)), name


class Storage:
    """The files below a URL, by their names from there on. Each is written whole or not at all.

    Args:
        url: as `as_place` returns it.
        patience_s: for how long what fails is tried again.
        fence: called before each try; raises where that may no longer be made.

    Raises:
        ConfigError: a URL that pyarrow does not understand.
        StorageError: it cannot be reached.
    """

    def __init__(self, url: str, patience_s: float = PATIENCE_S, fence: Callable[[], object] = int) -> None:
        self.url, self.patience_s, self.fence = url, patience_s, fence
        self.files, self.base = self._patiently(lambda: _opened(url))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the files below a name, at any depth, and their sizes in bytes."""
        place = f"{self.base}/{below}".rstrip("/")
        selector = fs.FileSelector(place, recursive=True, allow_not_found=True)
        found = self._patiently(lambda: self.files.get_file_info(selector))
        return {info.path[len(self.base) + 1 :]: info.size for info in found if info.is_file}

    def read(self, name: str) -> bytes | None:
        """Return what a file holds, None where there is none."""

        def read() -> bytes:
            with self.files.open_input_stream(f"{self.base}/{name}") as file:
                return file.read()

        try:
            return self._patiently(read)
        except FileNotFoundError:
            return None

    def read_json(self, name: str) -> Any:
        """Return what a JSON object in a file says, None where there is none.

        One that is replaced between the question how long it is and the reading comes cut off: it is read again.

        Raises:
            StorageError: it is damaged.
        """
        for pause_s in (*PAUSES_S, None):
            text = self.read(name)
            try:
                return None if text is None else json.loads(text)
            except ValueError as error:
                if pause_s is None:
                    raise StorageError(f"{self.url}: {name} is damaged ({error}): restore it from a backup") from None
            time.sleep(pause_s)

    def read_head(self, name: str, size: Callable[[bytes], int]) -> bytes | None:
        """Return the beginning of a file, None where there is none; `size` tells how long it is by its first bytes."""

        def read() -> bytes:
            with self.files.open_input_stream(f"{self.base}/{name}") as file:
                head: bytes = file.read(HEAD_BYTES)
                return head + file.read(max(0, min(size(head), MOST_HEAD_BYTES) - len(head)))

        try:
            return self._patiently(read)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes, once: bool = False) -> None:
        """Write a file; with `once`, at the first try or not at all."""

        def write() -> None:
            with self.files.open_output_stream(f"{self.base}/{name}") as file:
                file.write(data)

        self._patiently(write, 0.0 if once else self.patience_s)

    def get(self, name: str, path: Path) -> None:
        """Copy a file to this machine.

        Raises:
            FileNotFoundError: there is none.
        """
        self._patiently(lambda: fs.copy_files(
            f"{self.base}/{name}", str(path), source_filesystem=self.files, destination_filesystem=fs.LocalFileSystem()
        ))  # fmt: skip

    def copy(self, name: str, other: str) -> None:
        """Give a file's content another name too, without moving it over the network."""
        self._patiently(lambda: self.files.copy_file(f"{self.base}/{name}", f"{self.base}/{other}"))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are no matter."""
        for name in names:
            with suppress(FileNotFoundError):
                self._patiently(lambda name=name: self.files.delete_file(f"{self.base}/{name}"))  # type: ignore[misc]

    def _patiently(self, function: Callable[[], Result], patience_s: float | None = None) -> Result:
        until, tries = time.monotonic() + (self.patience_s if patience_s is None else patience_s), 0
        while True:
            self.fence()
            try:
                return function()
            except FileNotFoundError:
                raise
            except ArrowInvalid as error:
                raise ConfigError(f"{self.url} is no place for files: {_first_line(error)}") from None
            except (OSError, ArrowException) as error:
                number = getattr(error, "errno", None)
                if number in LOCAL:
                    raise StorageError(f"this machine has no room for what is in {self.url} ({error})") from None
                if any(word in str(error) for word in LASTS) or time.monotonic() >= until:
                    raise StorageError(
                        f"{self.url} cannot be used ({_first_line(error)}): what is there is safe; mend that, and run "
                        "the same command again"
                    ) from None
            time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1


@functools.lru_cache
def _opened(url: str) -> tuple[Any, str]:
    """Return the file system that has a URL, one for all who ask, in whatever thread, and the path in it."""
    parts = urlsplit(url)
    if parts.scheme != "s3":  # Google's tries again by itself, for a quarter of an hour unless told otherwise
        patient = urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, GS_PATIENCE]))))
        files, base = fs.FileSystem.from_uri(patient)
        return files, base.rstrip("/")
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - S3_OPTIONS)
    if unknown:
        raise ConfigError(f"{url}: s3:// takes {', '.join(sorted(S3_OPTIONS))} after its '?', but not {unknown[0]}")
    return _s3(parts.netloc, **options), f"{parts.netloc}{unquote(parts.path)}".rstrip("/")


@functools.lru_cache
def _s3(bucket: str, **options: str) -> Any:
    if "region" not in options and "endpoint_override" not in options:
        options["region"] = fs.resolve_s3_region(bucket)
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)  # each try is ours
    return fs.S3FileSystem(request_timeout=REQUEST_S, connect_timeout=CONNECT_S, retry_strategy=once, **options)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
