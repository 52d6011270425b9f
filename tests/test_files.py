"""Files are written as a whole or not at all; the remedy of a failed read or write fits its cause; strict JSON."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import h5py
import pytest

from onceforall.errors import UserError
from onceforall.files import check_no_pointer, in_full, parse_json, replacing, unreadable, unwritable, write_text

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(("number", "remedy"), [
    (errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"), (errno.EACCES, "writable"),
    (errno.EPERM, "writable"), (errno.EROFS, "not read-only"), (errno.EISDIR, "name of a file"),
    (errno.ENOTDIR, "a folder is needed"), (errno.EEXIST, "a folder is needed"), (errno.ENAMETOOLONG, "shorter"),
    (errno.EFBIG, "limit on the size"), (errno.EIO, "another place")])
def test_the_remedy_of_a_failed_write(number, remedy):
    """Whether the system says so or a library's text does; and no cause gets the remedy of another."""
    text = f"cannot create file (errno = {number}, error message = '...')"
    for error in (OSError(number, os.strerror(number), "x"), RuntimeError(text)):
        found = unwritable("x", error, then="go on")
        assert (found.place, found.problem) == ("x", f"cannot be written: {os.strerror(number)}")
        assert remedy in found.remedy and found.remedy.endswith("; go on")
        assert ("space" in found.remedy) == (number in (errno.ENOSPC, errno.EDQUOT))


@pytest.mark.parametrize(("number", "remedy"), [
    (errno.ENOENT, "`ofa x` writes one"), (errno.ENOTDIR, "`ofa x` writes one"), (errno.EACCES, "make it readable"),
    (errno.EISDIR, "give a file in it"), (errno.EIO, "")])
def test_the_remedy_of_a_failed_read(number, remedy):
    assert unreadable("x", OSError(number, "words"), missing="`ofa x` writes one").remedy == remedy


@pytest.mark.parametrize("write", [lambda path: h5py.File(path, "w"), lambda path: path.open("w")])
def test_what_the_libraries_raise_is_understood(tmp_path, write):
    """At a folder, and at a name that is too long."""
    (tmp_path / "folder").mkdir()
    for name, remedy in (("folder", "give the name of a file"), ("x" * 300, "give a shorter name")):
        path = tmp_path / name
        with pytest.raises(OSError) as error:  # noqa: PT011  # whichever
            write(path)
        assert unwritable(path, error.value).remedy == remedy


def test_pointers_of_git_lfs(tmp_path):
    (tmp_path / "pointer").write_text(POINTER)
    for name, content in (("empty", b""), ("file", b"version https://git-lfs.github.com"), ("other", b"\x89HDF\r\n")):
        (tmp_path / name).write_bytes(content)
        check_no_pointer(tmp_path / name)
    check_no_pointer(tmp_path / "missing")
    with pytest.raises(UserError, match="pointer: is a pointer of Git LFS, not the file itself; `git lfs pull`"):
        check_no_pointer(tmp_path / "pointer")


def test_where_a_relative_path_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (in_full("d"), in_full(Path("d/")), in_full("/d")) == (f" ({tmp_path}/d)", f" ({tmp_path}/d)", "")


def test_a_file_is_written_as_a_whole(tmp_path):
    path = tmp_path / "new" / "file"
    for text in ("one", "the next"):
        with replacing(path) as partial:
            partial.write_text(text[:2])
            assert not path.exists() or path.read_text() == "one"
            partial.write_text(text)
        assert path.read_text() == text
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_the_file_before_is_kept_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path, before = tmp_path / "file", tmp_path / "before"
    for text in ("1", "2", "3"):
        with replacing(path, before=before) as partial:
            partial.write_text(text)
    assert (path.read_text(), before.read_text()) == ("3", "2")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "x")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"), replacing(path, before=before) as partial:
        partial.write_text("4")
    assert (path.read_text(), before.read_text()) == ("3", "2")


@pytest.mark.parametrize(("error", "raised"), [
    (OSError(errno.ENOSPC, "x"), UserError), (RuntimeError("no"), RuntimeError), (UserError("a", "b"), UserError),
    (KeyboardInterrupt(), KeyboardInterrupt)])
def test_or_not_at_all(tmp_path, error, raised):
    def fail() -> None:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("aft")
            raise error
    write_text(tmp_path / "file", "before")
    with pytest.raises(raised):
        fail()
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("file", "before")]


def test_what_the_block_may_raise_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="file: cannot be written: No space left on device; free some space; go on"), \
            replacing(tmp_path / "file", causes=(RuntimeError,), then="go on"):
        raise RuntimeError("cannot write (errno = 28)")


@pytest.mark.parametrize(("text", "problem"), [
    ("{", "f: is not JSON: line 1, column 2"), ('{"a": {"b": 1, "b": 2}}', "a.b: is given twice"),
    ('{"a": [NaN]}', r"a\[0\]: nan is not a finite"), ("[" * 30 + "]" * 30, "nested more than 20"),
    ('{"a": 9223372036854775808}', "a: is a whole number of more than 63 bits"), (r'["\ud800"]', "half a character")])
def test_json_is_strict(text, problem):
    with pytest.raises(UserError, match=problem):
        parse_json(text, "f")
