"""Listings of folders: the same as by hand, and never older than the folders."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from encoded import names, png, save
from formats import dicom

from stopgrad.caching import AUTO, cache_root
from stopgrad.data.open import open_images
from stopgrad.data.place import IMAGE_SUFFIXES, is_image
from stopgrad.data.shared import listing
from stopgrad.data.shared.listing import list_images
from stopgrad.data.shared.names import FileNames
from stopgrad.data.sources import files_key


def by_hand(root):
    return [str(p) for p in sorted(root.rglob("*")) if p.is_file() and is_image(p.name)]


@pytest.fixture
def tree(tmp_path, rng):
    """Folders and files whose names sort otherwise as texts than by their parts."""
    root = tmp_path / "tree"
    for number in range(60):
        depth = int(rng.integers(0, 4))
        parts = ["".join(rng.choice(list("ab-. Z0"), 3)).strip(" .") or "c" for _ in range(depth)]
        path = root.joinpath(*parts, f"{'aB-0'[number % 4]}{number}.{['png', 'JPG', 'txt'][number % 3]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Listings of any length are kept, in a folder of their own; how often folders were read."""
    scans = []
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "LEAST_KEPT", 1)
    scan = listing._scan
    monkeypatch.setattr(listing, "_scan", lambda path, counts: scans.append(path) or scan(path, counts))
    return scans


def settle(monkeypatch):
    """Let the clock of the file system go on, and take what changed before for old."""
    time.sleep(0.02)
    monkeypatch.setattr(listing, "SETTLED_NS", 0)


def test_the_order_is_that_of_sorted_paths(tree):
    found = list_images(str(tree))
    assert list(found) == by_hand(tree)
    assert [found[i] for i in range(len(found))] == by_hand(tree)


def test_a_relative_root(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert list(list_images(".")) == [str(p.relative_to(tree)) for p in map(Path, by_hand(tree))]


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff\xfe.png")
    save(tmp_path / name)
    assert list(list_images(str(tmp_path))) == [str(tmp_path / name)]
    assert open_images(tmp_path).train.read(0) == png(0)


def test_a_second_listing_reads_no_folder(tree, kept, monkeypatch):
    settle(monkeypatch)
    first = list(list_images(str(tree)))
    kept.clear()
    again = list_images(str(tree))
    assert not kept
    assert list(again) == first
    assert again.first_parts() == list_images(str(tree)).first_parts()


def add(tree):
    save(tree / "new.png")


def remove(tree):
    Path(by_hand(tree)[5]).unlink()


def rename(tree):
    file = Path(by_hand(tree)[5])
    file.rename(file.with_name("z.png"))


def add_folder(tree):
    save(tree / "q" / "deep" / "new.png")


def rename_folder(tree):
    next(p for p in sorted(tree.iterdir()) if p.is_dir()).rename(tree / "zz")


def add_and_set_the_time_back(tree):
    """As rsync and tar do."""
    before = os.stat(tree).st_mtime_ns
    save(tree / "new.png")
    os.utime(tree, ns=(before, before))


@pytest.mark.parametrize("change", [add, remove, rename, add_folder, rename_folder, add_and_set_the_time_back])
def test_what_has_changed_is_listed_again(tree, kept, change, monkeypatch):
    settle(monkeypatch)
    list_images(str(tree))
    change(tree)
    assert list(list_images(str(tree))) == by_hand(tree)


def test_a_folder_that_changed_just_now_is_not_trusted(tree, kept):
    """Within one tick of the file system's clock a second change could not be seen."""
    list_images(str(tree))
    kept.clear()
    list_images(str(tree))
    assert kept


def test_folders_with_links_are_read_every_time(tree, kept, tmp_path, monkeypatch):
    save(tmp_path / "else" / "a.png")
    (tree / "linked").symlink_to(tmp_path / "else")
    settle(monkeypatch)
    list_images(str(tree))
    save(tmp_path / "else" / "b.png")
    assert {"a.png", "b.png"} <= {Path(p).name for p in list_images(str(tree))}


def test_a_damaged_listing_is_made_again(tree, kept, monkeypatch):
    settle(monkeypatch)
    list_images(str(tree))
    file = next((cache_root(AUTO) / listing.FOLDER).iterdir())
    file.write_bytes(file.read_bytes()[:-200])
    assert list(list_images(str(tree))) == by_hand(tree)


def test_without_a_cache_folder_nothing_is_kept(tree, kept, monkeypatch, tmp_path):
    monkeypatch.setenv("STOPGRAD_CACHE", "off")
    settle(monkeypatch)
    list_images(str(tree))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "file"))
    assert list(list_images(str(tree))) == by_hand(tree)
    assert not (tmp_path / "cache").exists()


def test_old_listings_are_removed(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(listing, "MOST_KEPT", 2)
    for name in "abc":
        save(tmp_path / name / "x.png")
        settle(monkeypatch)
        list_images(str(tmp_path / name))
        time.sleep(0.01)
    assert len(list((cache_root(AUTO) / listing.FOLDER).iterdir())) == 2


def test_a_file_changed_in_place_changes_the_key(tree, kept, monkeypatch):
    """Its folder does not tell; so the key asks each file."""
    settle(monkeypatch)
    before = files_key(list_images(str(tree)))
    assert files_key(list_images(str(tree))) == before
    Path(by_hand(tree)[3]).write_bytes(b"other")
    settle(monkeypatch)
    assert files_key(list_images(str(tree))) != before


def test_the_key_is_the_same_in_threads(tree, monkeypatch):
    from stopgrad.data import sources

    before = files_key(by_hand(tree))
    assert files_key(list_images(str(tree))) == before
    monkeypatch.setattr(sources, "_TRIED", 7)
    monkeypatch.setattr(sources, "_SLOW_SECONDS", 0.0)
    assert files_key(list_images(str(tree))) == before


def test_a_part_of_the_names():
    paths = ["b/y.png", "a/deep/z.png", "a/x.png", "a.png", "ab/w.png"]
    found, order = FileNames.of(paths)
    assert list(found) == sorted(paths, key=lambda p: p.split("/"))
    assert [paths[i] for i in order] == list(found)
    part = found.below("a")
    assert list(part) == ["a/deep/z.png", "a/x.png"]
    assert part.first == 0
    assert [part.first_parts()[f] for f in part.folder_of] == ["deep", ""]
    assert list(found.below("ab")) == ["ab/w.png"]
    assert list(found)[found.below("ab").first] == "ab/w.png"
    assert len(found.below("nowhere")) == 0


def test_labels_are_an_array(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png")
    source = open_images(tmp_path).train
    assert isinstance(source.labels, np.ndarray)
    assert names(source) == [str(tmp_path / "cat" / "a.png"), str(tmp_path / "dog" / "a.png")]


def test_what_counts_as_an_image_is_part_of_a_kept_listing(tree, kept, monkeypatch):
    settle(monkeypatch)
    before = len(list_images(str(tree)))
    monkeypatch.setattr("stopgrad.data.place.IMAGE_SUFFIXES", IMAGE_SUFFIXES - {".png"})
    monkeypatch.setattr(listing, "IMAGE_SUFFIXES", IMAGE_SUFFIXES - {".png"})
    assert 0 < len(list_images(str(tree))) < before


def test_dicom_files_need_no_suffix_where_there_is_no_other_image(tmp_path):
    scan = dicom(np.ones((8, 8), dtype=np.uint16))
    for name in ("b/IM000001", "b/1.2.840.113619", "a/IM000002", "a/README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text" if name.endswith("README") else scan)
    found = open_images(tmp_path).train
    kept = [os.path.relpath(found.name(i), tmp_path) for i in range(len(found))]
    assert kept == ["a/IM000002", "b/1.2.840.113619", "b/IM000001"]
    assert list(found.class_names) == ["a", "b"]
    (tmp_path / "a" / "one.dcm").write_bytes(scan)
    assert len(open_images(tmp_path).train) == 1
