"""Files are whole or absent, whatever stops their writer."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from reed_core.errors import InputError
from reed_core.files import directory_written_aside, sha256, write_text, write_with, written_aside

WRITERS = [written_aside, directory_written_aside]
not_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_arrives_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.txt"
    with written_aside(path) as aside:
        assert aside.parent == path.parent
        assert aside.suffix == ".txt"
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), KeyboardInterrupt(), SystemExit(1), FileNotFoundError(2, "x", "other")]
)
def test_a_failed_block_changes_nothing_and_keeps_its_error(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "text.txt"
    path.write_text("earlier")

    def fail(aside: Path) -> None:
        aside.write_text("part")
        raise error

    with pytest.raises(type(error)) as raised:
        write_with(path, fail)
    assert raised.value is error
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_write_text_and_write_with_agree(tmp_path: Path) -> None:
    text = "één\nline\n" * 100
    write_text(tmp_path / "text", text)
    write_with(tmp_path / "with", lambda aside: aside.write_bytes(text.encode()))
    assert (tmp_path / "text").read_bytes() == text.encode()
    assert sha256(tmp_path / "text") == sha256(tmp_path / "with")


def test_sha256_of_the_empty_file_and_of_abc_are_those_of_the_standard(tmp_path: Path) -> None:
    write_text(tmp_path / "empty", "")
    write_text(tmp_path / "abc", "abc")
    assert sha256(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")  # FIPS 180-2, appendix B.1


def test_permissions_are_those_of_a_plain_open(tmp_path: Path, umask: int) -> None:
    with open(tmp_path / "plain", "w"):
        pass
    (tmp_path / "plain_folder").mkdir()
    write_text(tmp_path / "ours", "x")
    with directory_written_aside(tmp_path / "our_folder"):
        pass
    assert mode(tmp_path / "ours") == mode(tmp_path / "plain") == 0o666 & ~umask
    assert mode(tmp_path / "our_folder") == mode(tmp_path / "plain_folder")


def test_permissions_hold_when_the_writer_renames_a_file_of_its_own(tmp_path: Path, umask: int) -> None:
    """As safetensors does: what it leaves has a new inode and 0600."""

    def writer(aside: Path) -> None:
        own = aside.with_name("own")
        own.touch(0o600)
        own.replace(aside)

    write_with(tmp_path / "ours", writer)
    assert mode(tmp_path / "ours") == 0o666 & ~umask


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.touch()
    path.chmod(0o750)
    write_text(path, "new")
    assert mode(path) == 0o750


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.txt", tmp_path / "link.txt"
    real.write_text("earlier")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device or pipe"):
        write_text(os.devnull, "x")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("writer", WRITERS)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, writer: type) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "out"
    with pytest.raises(InputError, match=f"cannot write {path}: .*choose another place"), writer(path):
        pytest.fail("the block must not run")


@not_root
@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_is_not_ours_is_named(tmp_path: Path, writer: type) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"), writer(tmp_path / "out"):
        pytest.fail("the block must not run")


@not_root
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("earlier")
    path.chmod(0o400)
    with pytest.raises(InputError, match="read-only"):
        write_text(path, "new")
    assert path.read_text() == "earlier"


def test_a_name_too_long_for_the_disk_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long"):
        write_text(tmp_path / ("n" * 300), "x")
    longest = tmp_path / ("n" * 251 + ".txt")
    write_text(longest, "x")
    assert longest.read_text() == "x"


def test_file_and_folder_are_not_mixed_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        write_text(tmp_path / "folder", "x")
    with pytest.raises(InputError, match="it is a file"), directory_written_aside(tmp_path / "file"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("before", ["absent", "empty"])
def test_a_folder_arrives_whole(tmp_path: Path, before: str) -> None:
    path = tmp_path / "run" / "step"
    if before == "empty":
        path.mkdir(parents=True)
    with directory_written_aside(path) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "one").write_text("1")
        assert before == "empty" or not path.exists()
    assert (path / "deep" / "one").read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with directory_written_aside(tmp_path / "step") as aside:
            (aside / "one").write_text("1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    with pytest.raises(InputError, match="not empty"), directory_written_aside(tmp_path):
        pytest.fail("the block must not run")
    assert (tmp_path / "one").read_text() == "1"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("hidden", ["plain", "in text", "in cause", "in context"])
def test_no_space_is_seen_through_what_hides_it(tmp_path: Path, number: int, writer: type, hidden: str) -> None:
    path = tmp_path / "out"
    system = OSError(number, os.strerror(number))

    def fail() -> None:
        if hidden == "plain":
            raise system
        if hidden == "in text":
            raise Exception(f"Error while serializing: I/O error: full (os error {number})")
        try:
            raise system
        except OSError:
            raise RuntimeError("the archive is broken") from (system if hidden == "in cause" else None)

    with pytest.raises(InputError, match=f"cannot write {path}: {os.strerror(number)}"), writer(path):
        fail()
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from reed_core.errors import InputError
from reed_core.files import directory_written_aside, written_aside

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
state = {"weight": torch.zeros(100_000)}

def plain(path):
    with open(path, "wb") as stream:
        stream.write(bytes(400_000))

def torch_stream(path):
    with open(path, "wb") as stream:
        torch.save(state, stream)

def old_format(path):
    torch.save(state, path, _use_new_zipfile_serialization=False)

folder = Path(sys.argv[1])
writers = [plain, torch_stream, old_format, lambda path: torch.save(state, path), lambda path: save_file(state, path)]
for writer in writers:
    for aside, name in ((written_aside, "."), (directory_written_aside, "within")):
        try:
            with aside(folder / "out") as path:
                writer(path / name if path.is_dir() else path)
        except InputError as error:
            print(error)
print(sorted(folder.iterdir()))
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_disk_that_takes_no_more_leaves_nothing_whoever_writes(tmp_path: Path) -> None:
    """A limit on the size of files stops the real writers part-way, as a full disk does."""
    program, folder = tmp_path / "program.py", tmp_path / "disk"
    program.write_text(LIMITED)
    folder.mkdir()
    lines = subprocess.check_output([sys.executable, program, folder], text=True).splitlines()
    assert lines.pop() == "[]"
    assert len(lines) == 10
    for line in lines:
        assert line.startswith(f"cannot write {folder / 'out'}: ")
        assert line.endswith("; free some space or choose another place")
