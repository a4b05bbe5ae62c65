"""Files in object stores (s3://, gs://, az://) and in fsspec's memory, with what is needed of Path's interface.

Everything goes through fsspec, whose libraries for each store are extras of their own (s3fs, gcsfs, adlfs). They take
credentials from the standard environment variables and files; an address that holds some is refused, so that none
comes into a message, a manifest or a report.

An object appears under its name whole or not at all: stores take a single upload at its end, and one in parts when it
is completed.
"""

from __future__ import annotations

import errno
import io
import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, TypeAlias, TypeVar, cast
from urllib.parse import unquote, urlsplit

from denoise_se.errors import UsageError

Result = TypeVar("Result")

# the library that serves a protocol; those here have no half-written objects
PROTOCOLS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "memory": "fsspec"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
ATTEMPTS, PAUSE = 3, 0.5  # pause in seconds, doubled each time; the libraries try a few times themselves
BLOCK_BYTES, KEPT_BLOCKS = 4 << 20, 4  # read at once, and kept of an open file
LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
# what tells one version of an object from the next, in the order of trust; stores name it differently
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "modified", "created")


@dataclass(frozen=True, order=True)
class Address:
    """A file or folder of a store: "s3://bucket/folder/name.png"."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def key(self) -> PurePosixPath:
        """The part behind the protocol."""
        return PurePosixPath(self.url.partition("://")[2])

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def suffix(self) -> str:
        return self.key.suffix

    @property
    def stem(self) -> str:
        return self.key.stem

    @property
    def parent(self) -> Address:
        return Address(f"{self.protocol}://{self.url.partition('://')[2].rpartition('/')[0]}")

    @property
    def bucket(self) -> Address:
        return Address(f"{self.protocol}://{self.key.parts[0] if self.key.parts else ''}")

    def __truediv__(self, name: str | PurePath) -> Address:
        below = name if isinstance(name, str) else name.as_posix()
        return self if below == "." else Address(f"{self.url.rstrip('/')}/{below}")

    def relative_to(self, folder: Address) -> Path:
        return Path(self.url[len(folder.url.rstrip("/")) + 1 :])

    def is_absolute(self) -> bool:
        return True

    def has_bucket(self) -> bool:
        """Whether it can be written to; memory has no buckets. Raises OSError."""
        return self.protocol == "memory" or self.bucket.exists()

    def absolute(self) -> Address:
        return self

    def exists(self) -> bool:
        return self._info() is not None

    def is_file(self) -> bool:
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        return (self._info() or {}).get("type") == "directory"

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Stores have no folders to make."""

    def identity(self) -> list[Any] | None:
        """What tells this version of the object from the next: its size and tag or time; None when there is none."""
        found = self._info()
        if found is None or found.get("type") == "directory":
            return None
        version = next((str(found[key]) for key in VERSIONS if found.get(key)), "")
        return [int(found.get("size") or 0), version]

    def walk(self, recursive: bool) -> Iterator[tuple[Address, list[str]]]:
        """Folders with the names of their files, both in sorted order, hidden folders left out. One folder's names are
        in memory at a time. Raises OSError."""
        found = _persistent(self, lambda system: system.ls(_inner(self), detail=True))
        names = {_last(entry["name"]): entry["type"] for entry in found if not _is_itself(self, entry["name"])}
        yield self, sorted(name for name, kind in names.items() if kind == "file")
        if recursive:
            for name in sorted(name for name, kind in names.items() if kind == "directory"):
                if not name.startswith("."):
                    yield from (self / name).walk(True)

    def names(self) -> set[str]:
        """Of the files in the folder; none when it is not there. Raises OSError."""
        try:
            return set(next(iter(self.walk(False)))[1])
        except FileNotFoundError:
            return set()

    def read_bytes(self) -> bytes:
        return _persistent(self, lambda system: system.cat_file(_inner(self)))

    def write_bytes(self, content: bytes) -> None:
        _persistent(self, lambda system: system.pipe_file(_inner(self), content))

    def unlink(self) -> None:
        _persistent(self, lambda system: system.rm_file(_inner(self)))

    def open_stream(self, block: int = BLOCK_BYTES) -> BinaryIO:
        """For reading and seeking; its parts are fetched when they are read, `block` bytes at a time."""
        found = self._info()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        size = int(found["size"] or 0)
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, size, block)))

    @contextmanager
    def replacing(self) -> Iterator[BinaryIO]:
        """A local temporary file, uploaded under this name when the block ends without an error. Raises OSError."""
        handle, name = tempfile.mkstemp(prefix="denoise-se-")
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream
            _persistent(self, lambda system: system.put_file(name, _inner(self)))
        finally:
            Path(name).unlink()

    def _info(self) -> dict[str, Any] | None:
        try:
            return _persistent(self, lambda system: system.info(_inner(self)))
        except FileNotFoundError:
            return None


Location: TypeAlias = Path | Address


def real_path(path: Path) -> Path:
    """Absolute and without links, as far as these lead anywhere; those in a circle stay, at which `resolve` raises."""
    return Path(os.path.realpath(path))


def parse_location(text: str | Location) -> Location:
    """A path, or an address for text like "s3://bucket/name"; "file://" gives a path. Raises UsageError."""
    if not isinstance(text, str):
        return text
    if not text:  # as of a shell's variable that is not set; a Path would take it for the current folder
        raise UsageError('the name "" is empty; give a file or folder, . for the current one')
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(text)
    protocol = scheme[1].lower()
    if protocol == "file":
        return Path(unquote(urlsplit(text).path))
    key = text[scheme.end() :].rstrip("/")
    if "@" in key.partition("/")[0]:
        raise UsageError(f"{protocol}://...: credentials in an address are refused; set them as environment variables")
    if protocol not in PROTOCOLS:
        raise UsageError(f"{text}: {protocol}:// is not supported; one of file, {', '.join(PROTOCOLS)}")
    if not key and protocol != "memory":
        raise UsageError(f"{text}: names no bucket; give {protocol}://BUCKET/FOLDER")
    return Address(f"{protocol}://{key}")


def check_library(address: Address) -> None:
    """UsageError when the library for the address is not installed."""
    try:
        _system(address.protocol)
    except ImportError as error:
        library = PROTOCOLS[address.protocol]
        extra = ' with pip install "denoise-se[s3]"' if library == "s3fs" else f" with pip install {library}"
        raise UsageError(
            f"{address}: {address.protocol}:// needs {library}, which is not installed; add it{extra}"
        ) from error


class _Ranges(io.RawIOBase):
    """An object by blocks of its bytes, the last few of which are kept: a TIFF's tables and pixels lie apart."""

    def __init__(self, address: Address, size: int, block: int) -> None:
        self.address, self.size, self.block, self.position = address, size, block, 0
        self.kept: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = max(0, offset + (0, self.position, self.size)[whence])
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        if self.position >= self.size:
            return 0
        number, offset = divmod(self.position, self.block)
        content = self._block(number)[offset : offset + len(buffer)]
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)

    def _block(self, number: int) -> bytes:
        content = self.kept.pop(number, None)
        if content is None:
            start = number * self.block
            stop, name = min(start + self.block, self.size), _inner(self.address)
            content = _persistent(self.address, lambda system: system.cat_file(name, start=start, end=stop))
            if len(content) != stop - start:
                raise OSError(errno.EIO, "it changed while it was read", str(self.address))
        self.kept[number] = content
        if len(self.kept) > KEPT_BLOCKS:
            self.kept.popitem(last=False)
        return content


@cache
def _system(protocol: str) -> Any:
    """The file system of a protocol. Listings are not kept: other machines write to the same store."""
    import fsspec

    return fsspec.filesystem(protocol, use_listings_cache=False)


def _inner(address: Address) -> str:
    """The name by which the file system knows it."""
    key = address.url.partition("://")[2]
    return f"/{key}" if address.protocol == "memory" else key


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _is_itself(folder: Address, name: str) -> bool:
    """Stores list an empty object that stands for the folder."""
    return name.strip("/") == _inner(folder).strip("/")


def _persistent(address: Address, call: Callable[[Any], Result]) -> Result:
    """The result of `call` with the file system, tried again after what may pass. Raises OSError with the mend."""
    for attempt in range(ATTEMPTS):
        try:
            return call(_system(address.protocol))
        except LASTING as error:
            raise _explained(address, error) from error
        except Exception as error:  # each library has errors of its own, and few are of OSError
            if attempt == ATTEMPTS - 1 or _lacks_credentials(error):
                raise _explained(address, error) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError  # the last attempt returns or raises


def _lacks_credentials(error: Exception) -> bool:
    return "Credential" in type(error).__name__


def _explained(address: Address, error: Exception) -> OSError:
    """An OSError without what the library says, which may hold credentials."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such bucket or object; check the address", str(address))
    if isinstance(error, PermissionError):
        text = "access denied; check the credentials in the environment and what they allow"
        return PermissionError(errno.EACCES, text, str(address))
    if _lacks_credentials(error):
        text = (
            "no credentials; set the store's environment variables, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
        return PermissionError(errno.EACCES, text, str(address))
    text = f"the store does not answer as it should ({type(error).__name__}, {ATTEMPTS} attempts); try again later"
    return OSError(errno.EIO, text, str(address))
