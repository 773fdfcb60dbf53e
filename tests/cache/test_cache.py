"""The cache of decoded images: what it saves, what it must not mix up, and what it survives."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.cache import cache as module
from stopgrad.cache import entry as cache_entry
from stopgrad.cache import eviction as cache_room
from stopgrad.cache.build import EntryWriter
from stopgrad.cache.cache import ImageCache, entry_key
from stopgrad.cache.entry import DamagedEntryError, open_entry
from stopgrad.cache.store import load_images
from stopgrad.caching import try_lock
from stopgrad.data.kinds.folders import FileSource
from stopgrad.data.kinds.parquet import ParquetSource
from stopgrad.data.pixels import RGB8
from stopgrad.data.sources import ArraySource, Subset
from stopgrad.errors import ConfigError, DataError

NUM = 20
FOR_KEY_AND_SAMPLE = 20 + 16
"""Images read before any is decoded for the cache."""


class Heard:
    def __init__(self):
        self.said, self.warned = [], []


class Counting(FileSource):
    """Files, with note of which were read."""

    def __init__(self, paths):
        super().__init__(paths)
        self.reads = []

    def read(self, index):
        self.reads.append(index)
        return super().read(index)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_IMAGES", 3)


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def load(root, heard):
    def load(source, *, setting=None, limit_gb=1.0, **options):
        cache = ImageCache(setting or str(root), limit_gb, say=heard.said.append, warn=heard.warned.append)
        return load_images(source, shortest=64, cache=cache, workers=2, **options)

    return load


def save(folder, shapes, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (height, width) in enumerate(shapes):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def even(tmp_path):
    return save(tmp_path / "even", [(8, 9)] * NUM)


@pytest.fixture
def uneven(tmp_path):
    return save(tmp_path / "uneven", [(8 + i, 9) for i in range(NUM)])


@pytest.fixture(params=["even", "uneven"])
def files(request):
    return request.getfixturevalue(request.param)


def entries(root):
    return sorted(path for path in root.iterdir() if path.is_dir())


def assert_same(a, b):
    assert (a.kept, a.skipped, a.fingerprint()) == (b.kept, b.skipped, b.fingerprint())
    assert (a.stacked is None, a.decoded is None) == (b.stacked is None, b.decoded is None)
    for position in range(len(a)):
        np.testing.assert_array_equal(a.pixels(position), b.pixels(position))


def spoil(files):
    files[3].write_bytes(b"")
    files[7].write_bytes(files[7].read_bytes()[:60])
    return files


# What it gives


def test_cached_images_are_those_decoded(files, load, root):
    plain = load_images(FileSource(files), shortest=64)
    for store in (load(FileSource(files)), load(FileSource(files))):
        assert_same(store, plain)
        assert store.whereabouts == f"cached in {root}"
    if plain.stacked is not None:
        assert store.stacked.is_contiguous()
    assert not (entries(root)[0] / "journal").exists()


def test_an_entry_is_opened_without_decoding(files, load, monkeypatch, heard):
    load(FileSource(files))
    monkeypatch.setattr("stopgrad.data.decode.decode", None)
    assert len(load(FileSource(files))) == NUM
    assert heard.warned == []


@pytest.mark.parametrize("odd", [0, 1, 9, NUM - 1])
def test_one_image_of_another_size(tmp_path, load, odd, monkeypatch):
    """Also where the sample has not seen it."""
    monkeypatch.setattr(module, "evenly_spaced", lambda length, num: [0, 2])
    files = save(tmp_path / "odd", [(5, 6) if i == odd else (8, 9) for i in range(NUM)])
    assert_same(load(FileSource(files)), load_images(FileSource(files), shortest=64))


def test_parquet(tmp_path, even, load, root):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in even]
    pq.write_table(pa.table({"image": rows, "label": list(range(NUM))}), tmp_path / "images.parquet")
    plain = load_images(ParquetSource([tmp_path / "images.parquet"]), shortest=64)
    for _ in range(2):
        store = load(ParquetSource([tmp_path / "images.parquet"]))
        assert_same(store, plain)
        assert torch.equal(store.labels, plain.labels)
    assert len(entries(root)) == 1


@pytest.mark.parametrize("memory_gb", [1.0, 1e-9])
def test_parts_are_taken_out_of_the_entry_of_the_whole(files, load, root, memory_gb):
    spoil(files)
    for part in ([1, 3, 4, 9], list(range(0, NUM, 2)), list(range(NUM))[::-1]):
        source = Subset(Subset(FileSource(files), list(range(NUM))), part)
        store, plain = load(source, memory_gb=memory_gb), load_images(source, shortest=64)
        assert (store.kept, store.skipped) == (plain.kept, plain.skipped)
        for position in range(len(plain)):
            np.testing.assert_array_equal(store.pixels(position), plain.pixels(position))
    assert len(entries(root)) == 1


def test_unreadable_images_are_told_by_every_run(files, load):
    spoil(files)
    plain = load_images(FileSource(files), shortest=64)
    assert len(plain.skipped) == 2
    for _ in range(2):
        assert_same(load(FileSource(files)), plain)


@pytest.mark.parametrize("built", [False, True])
def test_strict_refuses_unreadable_images(files, load, built):
    spoil(files)
    if built:
        load(FileSource(files))
    with pytest.raises(DataError, match=r"03\.png cannot be read: empty file"):
        load(FileSource(files), strict=True)


def test_no_readable_image(files, load, root):
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 20 images can be read"):
        load(FileSource(files))


def test_an_image_that_could_not_be_read_is_looked_for_again(even, load, heard, monkeypatch):
    class Failing(FileSource):
        def read(self, index):
            if index == 5:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(index)

    monkeypatch.setattr(module, "evenly_spaced", lambda length, num: [0, 1])  # the key is of images that can be read
    assert load(Failing(even)).skipped == {str(even[5]): "Input/output error"}
    assert load(Failing(even)).skipped
    assert heard.warned == []
    assert len(load(FileSource(even))) == NUM
    assert "1 image can be read now" in heard.warned[0]


# What it must not mix up


def test_other_images_have_another_entry(even, load, root):
    before = load(FileSource(even)).pixels(4).copy()
    stat = even[4].stat()
    Image.new("RGB", (9, 8), "red").save(even[4])
    os.utime(even[4], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = load(FileSource(even)).pixels(4)
    assert after.tolist() == [[[255, 0, 0]] * 9] * 8
    assert before.tolist() != after.tolist()
    assert len(entries(root)) == 2


def test_what_makes_a_key(even, tmp_path, monkeypatch):
    keys = {entry_key(FileSource(even), 64), entry_key(FileSource(even), 65), entry_key(FileSource(even[1:]), 64)}
    copied = tmp_path / "copied"
    shutil.copytree(even[0].parent, copied)
    keys.add(entry_key(FileSource(sorted(copied.iterdir())), 64))
    monkeypatch.setattr(module, "DECODER_VERSION", -1)
    keys.add(entry_key(FileSource(even), 64))
    monkeypatch.undo()
    # The same size and time, and other contents.
    stat, data = even[0].stat(), even[0].read_bytes()
    even[0].write_bytes(data[:-20] + bytes(20))
    os.utime(even[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    keys.add(entry_key(FileSource(even), 64))
    assert len(keys) == 6


def test_labels_are_not_part_of_it(even, load, root):
    load(FileSource(even))
    assert load(FileSource(even, [1] * NUM, ["a", "b"])).labels.tolist() == [1] * NUM
    assert len(entries(root)) == 1


def test_images_in_memory_are_not_cached(load, root, heard, rng):
    images = ArraySource(rng.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8))
    assert load(images).whereabouts == "in memory"
    assert not root.exists()
    assert "cache has no effect" in heard.warned[0]


def test_small_sets_are_held_in_memory_unless_a_folder_is_asked_for(even, load, monkeypatch, tmp_path):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "auto"))
    assert load(FileSource(even), setting="auto").whereabouts == "in memory"
    assert not (tmp_path / "auto").exists()
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    assert load(FileSource(even), setting="auto").whereabouts == f"cached in {tmp_path / 'auto'}"
    assert load(FileSource(even), setting="off").whereabouts == "in memory"
    monkeypatch.setenv("STOPGRAD_CACHE", "off")
    assert load(FileSource(even), setting="auto").whereabouts == "in memory"


def test_where_it_is(monkeypatch, tmp_path):
    for variable, value, root in (
        ("HOME", str(tmp_path), tmp_path / ".cache" / "stopgrad"),
        ("XDG_CACHE_HOME", "relative", tmp_path / ".cache" / "stopgrad"),
        ("XDG_CACHE_HOME", str(tmp_path / "xdg"), tmp_path / "xdg" / "stopgrad"),
        ("STOPGRAD_CACHE", "~/mine", tmp_path / "mine"),
    ):
        if variable == "HOME":
            monkeypatch.delenv("STOPGRAD_CACHE")
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(variable, value)
        assert ImageCache("auto", 1, say=print, warn=print).root == root


# What it survives


PIXELS_FAULTS = {
    "a bit": lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
    "the last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut": lambda data: data[:-5],
    "longer": lambda data: data + b"more",
    "empty": lambda data: b"",
}
META_FAULTS = {
    "no JSON": lambda data: data[:-5],
    "other JSON": lambda data: b"[]",
    "empty": lambda data: b"",
    "no text": lambda data: b"\xff\xfe\x00",
    "a digit": lambda data: data.replace(b'"num_images": 20', b'"num_images": 21'),
}
INDEX_FAULTS = {"cut": lambda data: data[:-3], "a bit": lambda data: data[:-8] + b"\x01" + data[-7:],
                "no array": lambda data: b"index", "empty": lambda data: b""}  # fmt: skip
FAULTS = [(name, fault) for name, faults in (("pixels", PIXELS_FAULTS), ("meta.json", META_FAULTS),
          ("index.npy", INDEX_FAULTS)) for fault in (*faults.values(), None)]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_damaged_entry_is_told_and_built_again(files, load, root, heard, name, fault):
    plain = load_images(FileSource(files), shortest=64)
    load(FileSource(files))
    (folder,) = entries(root)
    file = folder / name
    if fault is None:
        file.unlink()
    else:
        file.write_bytes(fault(file.read_bytes()))
    assert_same(load(FileSource(files)), plain)
    # Without meta.json an entry is one that was never completed.
    told = [] if (name, fault) == ("meta.json", None) else [f"the cache in {folder} is damaged"]
    assert [text.split(" (")[0] for text in heard.warned] == told
    heard.warned.clear()
    assert_same(load(FileSource(files)), plain)
    assert heard.warned == []


@pytest.mark.parametrize(("field", "value"), [("format", 99), ("key", "0" * 24)])
def test_an_entry_of_another_format_or_of_other_images(even, load, root, heard, field, value):
    load(FileSource(even))
    (folder,) = entries(root)
    content = json.loads((folder / "meta.json").read_text())["content"] | {field: value}
    document = {"crc32": cache_entry.crc_of_json(content), "content": content}
    (folder / "meta.json").write_text(json.dumps(document))
    assert len(load(FileSource(even))) == NUM
    assert ("format 99" if field == "format" else "of other images") in heard.warned[0]


def test_of_many_pixels_a_sample_is_checked(even, load, root, monkeypatch):
    load(FileSource(even))
    (folder,) = entries(root)
    monkeypatch.setattr(cache_entry, "CHECKED_BYTES", 1.0)
    data = bytearray((folder / "pixels").read_bytes())
    data[3 * 8 * 9 * 10] ^= 1
    (folder / "pixels").write_bytes(data)
    assert open_entry(folder, folder.name, RGB8) is not None
    data[-1] ^= 1
    (folder / "pixels").write_bytes(data)
    with pytest.raises(DamagedEntryError):
        open_entry(folder, folder.name, RGB8)


def test_those_who_use_a_damaged_entry_keep_what_they_see(even, load, root):
    first = load(FileSource(even))
    want = first.stacked.clone()
    (folder,) = entries(root)
    (folder / "index.npy").unlink()
    load(FileSource(even))
    (folder / "meta.json").unlink()
    load(FileSource(even))
    assert torch.equal(first.stacked, want)


@pytest.mark.parametrize("stop_at", [0, 1, 2, 5, NUM - 1])
def test_an_interrupted_build_goes_on(files, load, heard, stop_at):
    class Stop(Exception):
        pass

    def progress(done, total):
        if done > stop_at:
            raise Stop

    with pytest.raises(Stop):
        load(FileSource(files), progress=progress)
    source, seen = Counting(files), []
    store = load(source, progress=lambda *step: seen.append(step))
    assert_same(store, load_images(FileSource(files), shortest=64))
    done = min(NUM, 3 * (stop_at // 3 + 1))
    assert len(source.reads) == FOR_KEY_AND_SAMPLE + NUM - done
    assert seen == [(min(i + 3, NUM), NUM) for i in range(done, NUM, 3)]
    assert heard.warned == []


BUILD = """
import sys, time
from pathlib import Path
from stopgrad.data.kinds import folders
from stopgrad.cache import cache
from stopgrad.cache.store import load_images

cache.CHUNK_IMAGES = 3
class Slow(folders.FileSource):
    read_images = 0
    def read(self, index):
        Slow.read_images += 1
        time.sleep(float(sys.argv[3]))
        return super().read(index)

told = []
print("ready", flush=True)
sys.stdin.readline()
store = load_images(
    Slow(sorted(Path(sys.argv[1]).iterdir())), shortest=64, workers=1,
    cache=cache.ImageCache(sys.argv[2], 1, say=told.append, warn=told.append),
    progress=lambda done, total: print("done", done, flush=True),
)
print("read", Slow.read_images, len(store), sum(int(store.pixels(i).sum()) for i in range(len(store))), told)
"""


def start_building(folder, root, pause, begins=True):
    command = [sys.executable, "-c", BUILD, str(folder), str(root), str(pause)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    if begins:
        begin(process)
    return process


def begin(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_a_killed_build_goes_on(files, load, root):
    process = start_building(files[0].parent, root, 0.03)
    for line in process.stdout:
        if line == "done 9\n":
            break
    process.kill()
    process.wait()
    assert not (entries(root)[0] / "meta.json").exists()
    seen = []
    store = load(FileSource(files), progress=lambda done, total: seen.append(done))
    assert_same(store, load_images(FileSource(files), shortest=64))
    assert seen[0] in (12, 15)


@pytest.mark.parametrize("lost", ["a torn line", "pixels", "a header"])
def test_a_journal_that_says_too_much(files, load, root, lost):
    """As after a power cut: lines without their pixels, pixels without their line."""

    def progress(done, total):
        if done > 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(FileSource(files), progress=progress)
    (folder,) = entries(root)
    journal, pixels = folder / "journal", folder / "pixels"
    if lost == "a torn line":
        journal.write_bytes(journal.read_bytes()[:-10])
    elif lost == "pixels":
        pixels.write_bytes(pixels.read_bytes()[:900] + bytes(len(pixels.read_bytes()) - 900))
    else:
        journal.write_bytes(b'{"format":' + journal.read_bytes()[30:])
    for _ in range(2):
        assert_same(load(FileSource(files)), load_images(FileSource(files), shortest=64))


@pytest.mark.slow
def test_two_runs_at_once_build_once(files, root):
    processes = [start_building(files[0].parent, root, 0.03, begins=False) for _ in range(2)]
    for process in processes:
        begin(process)
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    lines = [out.splitlines()[-1].split(maxsplit=4) for out, _ in said]
    assert lines[0][2:4] == lines[1][2:4]
    assert sorted(int(line[1]) for line in lines) == [FOR_KEY_AND_SAMPLE, FOR_KEY_AND_SAMPLE + NUM]
    assert sorted(line[4] == "[]" for line in lines) == [False, True]
    assert "waiting for another run" in "".join(line[4] for line in lines)


@pytest.mark.slow
def test_a_builder_that_is_killed_is_followed_by_who_waits(files, root):
    first = start_building(files[0].parent, root, 0.05)
    for line in first.stdout:
        if line == "done 3\n":
            break
    second = start_building(files[0].parent, root, 0.0)
    time.sleep(0.5)
    first.kill()
    out, error = second.communicate(timeout=120)
    first.wait()
    assert second.returncode == 0, error
    assert int(out.splitlines()[-1].split()[1]) < FOR_KEY_AND_SAMPLE + NUM


# Room


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_told_beforehand(even, load, root, heard, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 4 * 10**9 - 1000, 4 * 10**9 + 1000))
    assert load(FileSource(even)).whereabouts == "in memory"
    assert "4 GB of the disk are free" in heard.warned[0]
    assert entries(root) == []
    streamed = load(FileSource(even), memory_gb=1e-9)
    assert streamed.whereabouts == "decoded every epoch"


def test_more_than_it_may_take(even, load, root, heard):
    assert load(FileSource(even), limit_gb=1e-6).whereabouts == "in memory"
    assert "they need 4.32e-06 GB, and cache_gb = 1e-06" in heard.warned[0]


@pytest.mark.parametrize("failing", [0, 4, 5])
@pytest.mark.parametrize("where", ["pixels", "journal", "end"])
def test_a_disk_that_fills_up_in_the_middle(files, load, root, heard, monkeypatch, where, failing):
    full = OSError(errno.ENOSPC, "No space left on device")

    def add(self, chunk, add=EntryWriter.add):
        if where == "pixels" and len(self.chunks) == failing:
            raise full
        add(self, chunk)

    def note(self, line, note=EntryWriter._note):
        if where == "journal" and len(self.chunks) == failing:
            raise full
        note(self, line)

    def replace(*_):
        raise full

    monkeypatch.setattr(EntryWriter, "add", add)
    monkeypatch.setattr(EntryWriter, "_note", note)
    if where == "end":
        monkeypatch.setattr(os, "replace", replace)
    store = load(FileSource(files))
    assert store.whereabouts == "in memory"
    assert len(store) == NUM
    assert entries(root) == []
    assert "writing failed: No space left on device" in heard.warned[0]


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
""" + BUILD.replace("len(store),", "len(store), store.whereabouts,")


@pytest.mark.slow
def test_a_write_that_really_fails(even, root):
    command = [sys.executable, "-c", LIMITED, str(even[0].parent), str(root), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "20 in memory" in done.stdout
    assert "writing failed: File too large" in done.stdout
    assert entries(root) == []


def test_images_larger_than_the_sample_promised(tmp_path, load, root, heard, monkeypatch):
    files = save(tmp_path / "growing", [(8, 9)] * 4 + [(60, 60)] * 16)
    monkeypatch.setattr(module, "evenly_spaced", lambda length, num: [0, 1])
    assert load(FileSource(files), limit_gb=2e-5).whereabouts == "in memory"
    assert "they need more than the 2e-05 GB there are" in heard.warned[0]
    assert entries(root) == []


def test_the_least_recently_used_goes_first_and_nothing_in_use(tmp_path, load, root, heard):
    sets = [save(tmp_path / str(i), [(8, 9)] * NUM, seed=i) for i in range(4)]
    size = 6000e-9  # 4,320 bytes of pixels and the rest
    held = load(FileSource(sets[0]), limit_gb=3 * size)
    (first,) = entries(root)
    load(FileSource(sets[1]), limit_gb=3 * size)
    (second,) = set(entries(root)) - {first}
    load(FileSource(sets[2]), limit_gb=3 * size)
    for age, folder in ((300, first), (100, second)):
        os.utime(folder / "used", (time.time() - age, time.time() - age))
    (root / "notes").mkdir()  # somebody else's
    load(FileSource(sets[3]), limit_gb=3 * size)
    assert first in entries(root)
    assert second not in entries(root)
    assert (root / "notes").exists()
    assert "removed 1 data set" in heard.said[0]
    assert heard.warned == []
    # Room for one: the one in use stays, and what needs more than the rest is not cached.
    del held
    kept = [load(FileSource(s), limit_gb=3 * size) for s in (sets[0], sets[2], sets[3])]
    assert load(FileSource(sets[1]), limit_gb=3 * size).whereabouts == "in memory"
    assert "are not in use" in heard.warned[0]
    assert len(kept[0]) == NUM
    assert len(entries(root)) == 4


def test_nothing_is_removed_in_vain(tmp_path, load, root, heard, monkeypatch):
    sets = [save(tmp_path / str(i), [(8, 9)] * NUM, seed=i) for i in range(2)]
    load(FileSource(sets[0]))
    before = entries(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 0))
    load(FileSource(sets[1]))
    assert entries(root) == before
    assert heard.warned


def test_a_build_that_was_given_up_is_removed_for_room(tmp_path, load, root):
    sets = [save(tmp_path / str(i), [(8, 9)] * NUM, seed=i) for i in range(2)]

    def progress(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(FileSource(sets[0]), progress=progress)
    (folder,) = entries(root)
    with try_lock(cache_room.lock_path(folder)):
        assert cache_room._lock_alone(folder) is None
    load(FileSource(sets[1]), limit_gb=4.5e-6)
    assert folder not in entries(root)


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_folder_that_cannot_be_used(even, load, tmp_path, kind, monkeypatch, heard):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / ("below" if kind == "below a file" else "")
    with pytest.raises(ConfigError, match=r"cache = '.*file.*' cannot be used"):
        load(FileSource(even), setting=str(place))
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    monkeypatch.setenv("STOPGRAD_CACHE", str(place))
    assert load(FileSource(even), setting="auto").whereabouts == "in memory"
    assert "cannot be used" in heard.warned[0]


def test_a_system_without_locks(even, load, monkeypatch, heard):
    monkeypatch.setattr("stopgrad.caching.AVAILABLE", False)
    assert load(FileSource(even), setting="auto").whereabouts == "in memory"
    assert "no locks" in heard.warned[0]
    with pytest.raises(ConfigError, match="no locks"):
        load(FileSource(even))


def test_a_file_system_without_locks(even, load, monkeypatch, heard):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    assert load(FileSource(even), setting="auto").whereabouts == "in memory"
    assert "No locks available" in heard.warned[0]


def test_writing_to_cached_pixels_does_not_change_the_file(even, load):
    load(FileSource(even)).stacked.zero_()
    assert load(FileSource(even)).stacked.any()
