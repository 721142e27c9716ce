"""Files in an object store, or on a file system that is known by a URL: s3://bucket/experiments, gs://bucket/data.

The credentials are those that the provider's own tools find (environment, files, the machine's role); a URL that holds
any is refused, for it is written down and shown. Whatever fails for a reason that may pass is tried again for a while.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pyarrow import fs

from tunekit.errors import ConfigError, StorageError
from tunekit.safe_text import is_secret

PATIENCE_S = 300.0  # for how long what fails is tried again: an outage of minutes ends no search
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries; the last again and again
REQUEST_S, CONNECT_S = 20.0, 5.0  # after which a request to S3 is given up, and tried again
S3_OPTIONS = {"region", "endpoint_override", "scheme"}  # that an s3:// URL may hold after its "?"
KNOWN = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")
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
    named = parts.username and not parts.scheme.startswith("abfs")  # which names a container there
    if named or parts.password or any(is_secret(key) for key, _ in parse_qsl(parts.query)):
        raise ConfigError("a URL with a password would be written down: leave that to the provider's own tools")
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.scheme not in KNOWN or not parts.netloc:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *KNOWN))
        raise ConfigError(f"{place} is no place for files: give a path, or a URL that begins with one of {known}")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/"), fragment=""))


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

    Raises:
        ConfigError: an option in the URL that is not known.
        StorageError: it cannot be reached.
    """

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self.url, self.patience_s = url, patience_s
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

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""

        def write() -> None:
            with self.files.open_output_stream(f"{self.base}/{name}") as file:
                file.write(data)

        self._patiently(write)

    def get(self, name: str, path: Path) -> None:
        """Copy a file to this machine.

        Raises:
            FileNotFoundError: there is none.
        """
        self._patiently(lambda: fs.copy_files(
            f"{self.base}/{name}", str(path), source_filesystem=self.files, destination_filesystem=fs.LocalFileSystem()
        ))  # fmt: skip

    def put(self, path: Path, name: str) -> None:
        """Copy a file of this machine there."""
        self.write(name, path.read_bytes())

    def copy(self, name: str, other: str) -> None:
        """Give a file's content another name too, without moving it over the network."""
        self._patiently(lambda: self.files.copy_file(f"{self.base}/{name}", f"{self.base}/{other}"))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are no matter."""
        for name in names:
            with suppress(FileNotFoundError):
                self._patiently(lambda name=name: self.files.delete_file(f"{self.base}/{name}"))  # type: ignore[misc]

    def _patiently(self, function: Callable[[], Result]) -> Result:
        until, tries = time.monotonic() + self.patience_s, 0
        while True:
            try:
                return function()
            except FileNotFoundError:
                raise
            except OSError as error:
                if (
                    isinstance(error, PermissionError)
                    or any(word in str(error) for word in LASTS)
                    or time.monotonic() >= until
                ):
                    raise StorageError(
                        f"{self.url} cannot be used ({_first_line(error)}): what is there is safe; mend that, and run "
                        "the same command again"
                    ) from None
            time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1


def _opened(url: str) -> tuple[Any, str]:
    parts = urlsplit(url)
    if parts.scheme != "s3":
        files, base = fs.FileSystem.from_uri(url)
        return files, base.rstrip("/")
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - S3_OPTIONS)
    if unknown:
        raise ConfigError(f"{url}: s3:// takes {', '.join(sorted(S3_OPTIONS))} after its '?', but not {unknown[0]}")
    return _s3(parts.netloc, **options), f"{parts.netloc}{unquote(parts.path)}".rstrip("/")


@functools.lru_cache
def _s3(bucket: str, **options: str) -> Any:
    """Return the file system that has a bucket; one for all who ask, in whatever thread."""
    if "region" not in options and "endpoint_override" not in options:
        options["region"] = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(request_timeout=REQUEST_S, connect_timeout=CONNECT_S, **options)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
