"""Shards on another machine, by fsspec: found, compared and downloaded, with time limits and retries."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stopgrad.data.shards.index import Shard
from stopgrad.data.shards.place import LIST, SUFFIXES, read_list, shown, suffix_of
from stopgrad.errors import DataError

STALL_SECONDS = 30.0
"""A server that sends nothing for so long is given up."""
ATTEMPTS = 3
BACKOFF_SECONDS = 1.0
"""Before the second attempt; doubled before each further one."""
# What servers say of a file's content, the surest first.
_STAMPS = ("ETag", "etag", "generation", "Content-MD5", "Digest", "Last-Modified", "LastModified", "mtime", "updated")
_WAY_OUT = {
    "s3": "Credentials come from the environment or ~/.aws (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL); for a "
          "public bucket set FSSPEC_S3_ANON=true.",
    "gs": "Credentials come from `gcloud auth application-default login` or GOOGLE_APPLICATION_CREDENTIALS; for a "
          "public bucket set FSSPEC_GS_TOKEN=anon.",
    "http": "Check the address and the network (curl -I), and whether it needs a signature.",
}  # fmt: skip


class GoneError(OSError):
    """A shard that is not there, may not be read or is another one by now: trying again is no use."""


def list_remote(place: str) -> list[str]:
    """The shards that an address means: itself, those of a folder or pattern, or those of a list.

    Raises:
        DataError: there are none, or the server does not answer.
    """
    suffix = suffix_of(place)
    if suffix == LIST:
        return read_list(_tried(place, lambda files, path: files.cat_file(path)), place)
    if suffix in SUFFIXES and "*" not in place:
        return [place]
    pattern = place if "*" in place else place.rstrip("/") + "/*"

    def found(files: Any, path: str) -> list[str]:
        return [str(files.unstrip_protocol(name)) for name in sorted(files.glob(path))]

    places = [name for name in _tried(pattern, found) if suffix_of(name) in SUFFIXES]
    if not places:
        raise DataError(f"{shown(pattern)!r} matches no .tar or .parquet file.", topic="remote-files")
    return places


def identify(place: str) -> Shard:
    """A remote shard as it is now.

    Raises:
        DataError: it is not there, may not be read, or the server does not answer.
    """
    return _tried(place, lambda files, path: _shard(place, files.info(path)))


def open_remote(shard: Shard) -> Any:
    """The shard as a file that can be read at any place, where the server allows it."""
    files, path = _files(shard.place)
    return files.open(path, "rb")


def download(shard: Shard, target: Path) -> None:
    """Copy a shard into a file.

    Raises:
        GoneError: it is not there, may not be read, or has changed since `shard` was identified.
        OSError: it did not come, whatever was tried.
    """
    for attempt in range(ATTEMPTS):
        try:
            files, path = _files(shard.place)
            now = _shard(shard.place, files.info(path))
            if now != shard:
                raise GoneError("its shard has changed since the run began")
            files.get_file(path, str(target))
            size = target.stat().st_size
            if size != shard.size:
                raise OSError(f"{size:,} bytes came of {shard.size:,}")
            return
        except Exception as error:
            target.unlink(missing_ok=True)
            if isinstance(error, GoneError) or _is_final(error):
                raise GoneError(_words(error)) from error
            if attempt + 1 == ATTEMPTS:
                raise OSError(f"download failed {ATTEMPTS} times: {_words(error)}") from error
        time.sleep(BACKOFF_SECONDS * 2**attempt)


def _tried(place: str, ask: Any) -> Any:
    for attempt in range(ATTEMPTS):
        try:
            return ask(*_files(place))
        except DataError:
            raise
        except Exception as error:
            if attempt + 1 == ATTEMPTS or _is_final(error):
                raise DataError(
                    f"{shown(place)!r} cannot be read: {_words(error)}. {_way_out(place)}", topic="remote-files"
                ) from error
        time.sleep(BACKOFF_SECONDS * 2**attempt)
    raise AssertionError


def _files(place: str) -> tuple[Any, str]:
    """The file system of an address, and the path there."""
    import fsspec

    scheme = urlsplit(place).scheme.lower()
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        limits = {"connect_timeout": STALL_SECONDS, "read_timeout": STALL_SECONDS, "retries": {"max_attempts": 0}}
        options["config_kwargs"] = limits
    elif scheme == "gs":
        options["requests_timeout"] = STALL_SECONDS
    else:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS)
        options["client_kwargs"] = {"timeout": limit}
    files, path = fsspec.core.url_to_fs(place, **options)
    if scheme == "s3":
        files.retries = 1
    return files, path


def _shard(place: str, info: dict[str, Any]) -> Shard:
    if info.get("type") == "directory" or info.get("size") is None:
        raise DataError(f"{shown(place)!r} is no file of a known size.")
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), "")
    return Shard(place, int(info["size"]), stamp)


def _causes(error: BaseException) -> Sequence[BaseException]:
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


def _is_final(error: BaseException) -> bool:
    """Whether trying again is no use: not there, not allowed, no credentials, no room on this disk."""
    causes = _causes(error)
    statuses = [status for cause in causes if isinstance(status := getattr(cause, "status", None), int)]
    if statuses:
        return all(status in (401, 403, 404, 410) for status in statuses)
    names = {type(cause).__name__ for cause in causes}
    if names & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
        return True
    # fsspec says of a server that does not answer that the file is not found.
    if any(isinstance(c, (ConnectionError, TimeoutError)) or "aiohttp" in type(c).__module__ for c in causes):
        return False
    return isinstance(error, (FileNotFoundError, PermissionError))


def _words(error: BaseException) -> str:
    """The error in a line: the first cause that says something, with a status where the server gave one."""
    for cause in reversed(_causes(error)):
        status, message = getattr(cause, "status", None), getattr(cause, "message", "")
        if isinstance(status, int):
            return f"{status} {message}".strip()
    if any(isinstance(cause, TimeoutError) for cause in _causes(error)):
        return f"nothing came for {STALL_SECONDS:g} seconds"
    first = _causes(error)[-1]
    if isinstance(first, FileNotFoundError):
        return "it is not there"  # the text is the address, with its query
    text = str(first).splitlines()[0] if str(first) else ""
    return text or type(first).__name__


def _way_out(place: str) -> str:
    scheme = urlsplit(place).scheme.lower()
    return _WAY_OUT["http" if scheme == "https" else scheme]
