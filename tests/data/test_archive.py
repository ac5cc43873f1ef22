import stat
import zipfile

import pytest

from dash_core.data.archive import unpack_zip
from dash_core.data.progress import silent
from dash_core.errors import DataError


def zip_with(path, name, content=b"x", mode=stat.S_IFREG | 0o644):
    """Write a zip with a good member and one of the given name and kind."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good/file.txt", "good")
        member = zipfile.ZipInfo("placeholder")
        member.filename = member.orig_filename = name
        member.create_system = 3
        member.external_attr = mode << 16
        archive.writestr(member, content)
    return path


def test_a_plain_zip_is_unpacked_with_its_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("deep")
        archive.writestr("deep/er/file.txt", "content")
    unpack_zip(tmp_path / "a.zip", tmp_path / "out", largest=100, progress=silent)
    assert (tmp_path / "out/deep/er/file.txt").read_text() == "content"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../escaped.txt", stat.S_IFREG),
        ("good/../../escaped.txt", stat.S_IFREG),
        ("/escaped.txt", stat.S_IFREG),
        ("//escaped.txt", stat.S_IFREG),
        ("C:/escaped.txt", stat.S_IFREG),
        ("..\\escaped.txt", stat.S_IFREG),
        ("escaped.txt\0.png", stat.S_IFREG),
        ("link", stat.S_IFLNK),
        ("pipe", stat.S_IFIFO),
        ("device", stat.S_IFCHR),
    ],
)
def test_a_hostile_member_is_refused_before_anything_is_written(tmp_path, name, mode):
    archive = zip_with(tmp_path / "a.zip", name, content=b"../..", mode=mode | 0o777)
    with pytest.raises(DataError, match=r"a\.zip: the member .*nothing was unpacked"):
        unpack_zip(archive, tmp_path / "out" / "in", largest=100, progress=silent)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_bomb_is_refused_before_anything_is_written(tmp_path):
    archive = zip_with(tmp_path / "a.zip", "zeros", content=bytes(10**6))
    with pytest.raises(DataError, match="1000004 bytes unpacked, more than the 1000000"):
        unpack_zip(archive, tmp_path / "out", largest=10**6, progress=silent)
    assert not (tmp_path / "out").exists()


def test_no_file_is_written_twice(tmp_path):
    archive = zip_with(tmp_path / "a.zip", "good/./file.txt")
    with pytest.raises(DataError, match=r"a\.zip: the member 'good/file\.txt' is there twice"):
        unpack_zip(archive, tmp_path / "out", largest=100, progress=silent)


def test_a_member_cannot_be_a_file_and_a_folder(tmp_path):
    archive = zip_with(tmp_path / "a.zip", "good/file.txt/below")
    with pytest.raises(DataError, match=r"a\.zip: .*file\.txt is both a file and a folder"):
        unpack_zip(archive, tmp_path / "out", largest=100, progress=silent)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_zip_is_named(tmp_path, damage):
    archive = zip_with(tmp_path / "a.zip", "large", content=bytes(range(256)) * 40)
    content = bytearray(archive.read_bytes())
    content[200] ^= 255
    archive.write_bytes({"cut": content[:-30], "changed": content, "empty": b""}[damage])
    with pytest.raises(DataError, match=r"a\.zip: a damaged zip file"):
        unpack_zip(archive, tmp_path / "out", largest=10**6, progress=silent)
