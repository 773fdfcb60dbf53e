"""What a path says of shards: patterns, lists and addresses; without numpy, torch or fsspec, so that a wrong one is
reported at once.
"""

import glob
import importlib.util
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from stopgrad.errors import ConfigError, DataError

TAR, PARQUET, LIST = ".tar", ".parquet", ".json"
SUFFIXES = (TAR, PARQUET)
SMALL_BYTES = 10**9
"""Sets below are shuffled as a whole, and decoded images are cached as those of files are."""
MAX_SHARDS = 100_000
LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
"""What fsspec needs to read from where."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_remote(place: str) -> bool:
    """Whether it is an address, such as https://host/train.tar."""
    return _REMOTE.match(place) is not None


def suffix_of(place: str) -> str:
    """The suffix in lower case, without the query of an address."""
    return os.path.splitext(without_query(place))[1].lower()


def without_query(place: str) -> str:
    """An address without its query, which may hold a signature and changes with it; a path as it is."""
    return place.split("?", 1)[0].split("#", 1)[0] if is_remote(place) else place


def shown(place: str) -> str:
    """As it may be printed: an address without query, user and password."""
    if not is_remote(place):
        return place
    scheme, rest = without_query(place).split("://", 1)
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def names_shards(path: str | Path, *, streamed: bool = False) -> bool:
    """Whether a data set's path means shards: addresses, tar archives, folders or lists of them, large parquet files.

    Parquet files below `SMALL_BYTES` in all are none, but if `streamed` is set: they are held in memory.
    """
    least = 1 if streamed else SMALL_BYTES
    text = str(path)
    if not text or (text.endswith(_COMPRESSED) and os.path.exists(os.path.expanduser(text))):
        return bool(text)
    parts = text.split("::")
    if any(is_remote(part) for part in parts):
        return True
    if len(parts) == 1 and (root := Path(text).expanduser()).is_dir():
        return _holds_archives_only(root) or _size(parquet_in(root)) >= least
    if all(suffix_of(part) in SUFFIXES or suffix_of(part) == LIST for part in parts):
        # Of one kind, or the message about the other one.
        if any(suffix_of(part) != PARQUET for part in parts):
            return all(suffix_of(part) != LIST or _is_list(part) for part in parts)
        is_pattern = len(parts) > 1 or not os.path.exists(os.path.expanduser(text))
        return (is_pattern and bool(_matches(parts))) or _size([Path(text).expanduser()]) >= least
    return all(part.endswith((TAR, *_COMPRESSED)) for part in parts)


def check_shards(text: str) -> None:
    """Raise `DataError` or `ConfigError` for shards that cannot be there, without asking the network."""
    for part in text.split("::"):
        if is_remote(part):
            _check_address(part)
    local_shards(text)


def local_shards(text: str) -> list[str]:
    """The shards that a path means, in order. Addresses of folders, lists and patterns (`*`) are left as they are.

    Raises:
        DataError: a file that is not there, a pattern without a match, an archive that is compressed, too many.
    """
    found: list[str] = []
    for part in text.split("::"):
        part = part if is_remote(part) else os.path.expanduser(part)
        places = [part] if not is_remote(part) and os.path.exists(part) else _braces(part)
        for place in places:
            if place.endswith(_COMPRESSED):
                raise DataError(
                    f"{shown(place)!r} is compressed, and images are read in place: unpack it to a .tar "
                    "(gunzip, bunzip2, unxz, unzstd), which hardly grows with JPEGs in it."
                )
            found += [place] if is_remote(place) else _local(place)
            if len(found) > MAX_SHARDS:
                raise DataError(f"{text!r} means more than {MAX_SHARDS:,} shards.")
    missing = [place for place in found if not is_remote(place) and not os.path.exists(place)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(found)} shards do not exist; the first: {missing[0]!r}. A pattern names shards "
            "that are there: train-{000..099}.tar, train-*.tar.",
            topic="remote-files",
        )
    return found


def absolute(text: str) -> str:
    """The same shards, as they will be found from another folder."""
    return "::".join(p if is_remote(p) else os.path.abspath(os.path.expanduser(p)) for p in text.split("::"))


def read_list(content: str | bytes, place: str) -> list[str]:
    """The shards of a list as WebDataset's index.json is: {"shardlist": [{"url": ...}, ...]}, relative to the list.

    Raises:
        DataError: it is none.
    """
    try:
        names = [entry["url"] for entry in json.loads(content)["shardlist"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f'{shown(place)!r} is no list of shards: needs {{"shardlist": [{{"url": "train-000.tar"}}, ...]}}.'
        ) from error
    folder = without_query(place).rpartition("/")[0]
    return [name if is_remote(name) or not folder else f"{folder}/{name}" for name in names]


def name_of(text: str) -> str:
    """What a set of shards is called: the last part of its path."""
    return shown(text.split("::")[0]).rstrip("/").rpartition("/")[2] or shown(text)


def _local(place: str) -> list[str]:
    path = Path(place)
    if path.is_dir():
        inside = sorted(name for name in os.listdir(path) if not name.startswith("."))
        shards = [str(path / name) for name in inside if name.endswith(TAR)]
        if not shards and (compressed := [name for name in inside if name.endswith(_COMPRESSED)]):
            return local_shards(str(path / compressed[0]))
        return shards or [str(p) for p in parquet_in(path)]
    if suffix_of(place) == LIST and path.is_file():
        return read_list(path.read_bytes(), place)
    if not path.exists() and glob.has_magic(place):
        found = sorted(glob.glob(place))
        if not found:
            raise DataError(f"{place!r} matches no file.")
        return found
    return [place]


def parquet_in(root: Path) -> list[Path]:
    """The parquet files of a folder, else those in `data/` there."""
    for folder in (root, root / "data"):
        # Of a million other files only names are looked at.
        found = sorted(n for n in os.listdir(folder) if n.endswith(PARQUET)) if folder.is_dir() else []
        if found:
            return [folder / name for name in found]
    return []


def _holds_archives_only(root: Path) -> bool:
    """Whether a folder has archives, and neither there nor below images, which may have come in one of them."""
    # `data/place.py` imports this file.
    from stopgrad.data.place import is_image

    found, folders = False, []
    with os.scandir(root) as entries:
        for entry in entries:
            if is_image(entry.name):
                return False
            if entry.is_dir():
                folders.append(entry.path)
            found |= entry.name.endswith((TAR, *_COMPRESSED))
    if not found:
        return False
    return not any(is_image(name) for folder in folders for _, _, names in os.walk(folder) for name in names)


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _is_list(part: str) -> bool:
    try:
        return b'"shardlist"' in Path(part).expanduser().read_bytes()
    except OSError:
        return False


def _matches(parts: Sequence[str]) -> list[str]:
    return [match for part in parts for place in _braces(os.path.expanduser(part)) for match in glob.glob(place)]


def _braces(text: str) -> list[str]:
    """`a{0..9}{x,y}` in all its forms, with leading zeros as given."""
    choices = [_choices(match[1]) for match in _BRACES.finditer(text)]
    fixed = _BRACES.split(text)[::2]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_SHARDS:
        raise DataError(f"{shown(text)!r} means {total:,} shards, of which {MAX_SHARDS:,} are allowed.")
    return ["".join(_interleaved(fixed, chosen)) for chosen in itertools.product(*choices)]


def _choices(inside: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= MAX_SHARDS:
        raise DataError(f"{{{inside}}} means {abs(last - first) + 1:,} shards, of which {MAX_SHARDS:,} are allowed.")
    width = len(match[1]) if match[1].startswith("0") else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}}" for number in range(first, last + step, step)]


def _interleaved(fixed: Sequence[str], chosen: Sequence[str]) -> Iterator[str]:
    yield fixed[0]
    for choice, text in zip(chosen, fixed[1:], strict=True):
        yield choice
        yield text


def _check_address(address: str) -> None:
    scheme = urlsplit(without_query(address)).scheme.lower()
    if scheme not in LIBRARIES:
        raise ConfigError(
            f"{shown(address)!r}: shards are read from {', '.join(f'{name}://' for name in LIBRARIES)} and paths."
        )
    for module in ("fsspec", LIBRARIES[scheme]):
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"{shown(address)!r} needs {module}: pip install 'stopgrad[remote]'.", topic="missing-package"
            )
    if scheme in ("http", "https"):
        if suffix_of(address) not in (*SUFFIXES, LIST):
            raise ConfigError(
                f"{shown(address)!r}: needs addresses of .tar or .parquet files, or a .json list of them; a web server "
                "lists no folder."
            )
        if "*" in without_query(address):
            raise ConfigError(f"{shown(address)!r}: a web server lists no files: write train-{{000..099}}.tar for *.")
