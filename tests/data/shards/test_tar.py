import io
import itertools
import json
import tarfile

import pytest
from sharded import add, encoded, write_tar

from stopgrad.data.shards.tar import index_tar


def indexed(path, members=None):
    """The entries of an archive, of these members if they are given."""
    if members is not None:
        with tarfile.open(path, "w") as archive:
            for name, *more in members:
                add(archive, name, *more[:1], **(more[1] if len(more) > 1 else {}))
    with open(path, "rb") as file:
        return index_tar(file)


def names(entries):
    ends = [0, *entries.name_ends]
    return [entries.names[a:b].decode() for a, b in itertools.pairwise(ends)]


def labels(entries):
    classes = [*entries.classes, None]
    return [classes[label] for label in entries.labels]


def test_images_lie_where_the_index_says(tmp_path):
    path = write_tar(tmp_path / "a.tar", range(5))
    entries = indexed(path)
    content = path.read_bytes()
    found = [content[o : o + s] for o, s in zip(entries.offsets, entries.sizes, strict=True)]
    assert found == [encoded(number) for number in range(5)]
    assert names(entries) == [f"{number:06}.png" for number in range(5)]
    assert labels(entries) == ["0", "1", "0", "1", "0"]
    assert entries.problem == ""


def test_labels_come_from_cls_or_json(tmp_path):
    entries = indexed(tmp_path / "a.tar", [
        ("a.jpg", b"1"), ("a.cls", b"cat\n"), ("b.json", json.dumps({"label": 7}).encode()), ("b.jpg", b"2"),
        ("c.jpg", b"3"), ("c.json", json.dumps({"class": "dog", "url": "x"}).encode()), ("d.jpg", b"4"),
        ("d.json", b"{"), ("e.jpg", b"5"), ("e.txt", b"a caption"), ("f.jpg", b"6"), ("f.json", b"[1]"),
    ])  # fmt: skip
    assert names(entries) == [f"{letter}.jpg" for letter in "abcdef"]
    assert labels(entries) == ["cat", "7", "dog", None, None, None]
    assert entries.problem == ""


def test_of_several_images_of_a_sample_the_plain_one_is_taken(tmp_path):
    entries = indexed(tmp_path / "a.tar", [
        ("x/a.mask.png", b"m"), ("x/a.jpg", b"1"), ("x/a.cls", b"0"), ("x/b.left.png", b"l"), ("x/b.right.png", b"r"),
        ("x/b.cls", b"1"),
    ])  # fmt: skip
    assert names(entries) == ["x/a.jpg", "x/b.left.png"]
    assert labels(entries) == ["0", "1"]
    assert entries.problem == "passed over 2 further images of a sample"


def test_images_alone_are_classed_by_folder(tmp_path):
    entries = indexed(tmp_path / "a.tar", [
        ("./set/README.txt", b"about"), ("./set/cat/frame.0001.jpg", b"1"), ("./set/cat/frame.0002.jpg", b"2"),
        ("./set/dog/1.jpg", b"3"), ("./set/dog/.hidden.jpg", b"4"), ("set/.thumbs/1.jpg", b"5"),
    ])  # fmt: skip
    assert names(entries) == ["set/cat/frame.0001.jpg", "set/cat/frame.0002.jpg", "set/dog/1.jpg"]
    assert labels(entries) == ["cat", "cat", "dog"]
    assert entries.problem == ""


def test_what_leads_out_of_the_archive_is_passed_over(tmp_path):
    link = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
    entries = indexed(tmp_path / "a.tar", [
        ("../up.jpg", b"1"), ("/etc/abs.jpg", b"2"), ("a/../../b.jpg", b"3"), ("good.jpg", b"4"),
        ("link.jpg", b"", link),
        ("device.jpg", b"", {"type": tarfile.CHRTYPE}), ("inner.tar", b"5"), ("inner.zip", b"6"),
    ])  # fmt: skip
    assert names(entries) == ["good.jpg"]
    assert entries.problem == (
        "passed over 3 names that lead out of the archive; passed over 2 links, devices and the like; passed over 2 "
        "archives inside"
    )


def test_long_and_odd_names(tmp_path):
    odd = ["a" * 150 + "/" + "b" * 120 + ".jpg", "föö bär.jpg", "n" * 300 + ".jpg"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            for name in odd:
                add(archive, name, b"1")
        assert names(indexed(tmp_path / "a.tar")) == odd


@pytest.mark.parametrize(("end", "whole"), [(0, 2), (400, 2), (512, 2), (1000, 2), (512 + 852, 3)])
def test_a_truncated_archive_gives_what_is_whole(tmp_path, end, whole):
    path = write_tar(tmp_path / "a.tar", range(6))
    third = indexed(path).offsets[2]
    path.write_bytes(path.read_bytes()[: third - 512 + end])
    entries = indexed(path)
    assert len(entries.offsets) == whole
    assert "truncated" in entries.problem or "cut off" in entries.problem
    assert f"after {whole} whole images" in entries.problem


def test_damage_in_the_middle_is_said(tmp_path):
    path = write_tar(tmp_path / "a.tar", range(6))
    content = bytearray(path.read_bytes())
    third = indexed(path).offsets[2] - 512
    content[third : third + 512] = b"\xff" * 512
    path.write_bytes(content)
    entries = indexed(path)
    assert len(entries.offsets) == 2
    assert entries.problem == "damaged after 2 whole images"


def test_a_header_that_leads_backward_ends_the_search(tmp_path):
    member = tarfile.TarInfo("b.jpg")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + (-1536 & 0xFFFF).to_bytes(2, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as archive:
        add(archive, "a.jpg", b"1")
    (tmp_path / "a.tar").write_bytes(good.getvalue()[:1024] + bytes(header) + good.getvalue())
    entries = indexed(tmp_path / "a.tar")
    assert names(entries) == ["a.jpg"]
    assert entries.problem == "damaged after 1 whole images"


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"x" * 5000])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    entries = indexed(tmp_path / "a.tar")
    assert len(entries.offsets) == 0
    assert entries.problem


def test_a_compressed_archive_is_said(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        add(archive, "a.jpg", b"1")
    assert "gunzip" in indexed(tmp_path / "a.tar").problem


def test_an_archive_without_images(tmp_path):
    entries = indexed(tmp_path / "a.tar", [("readme.txt", b"none")])
    assert len(entries.offsets) == 0
