"""Compiled programs on disk: found again, never trusted blindly, never in the way."""

import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from downslope.engines.fused import cache
from downslope.engines.fused.cache import CacheWarning, Entry
from downslope.errors import DownslopeError, InputError

ENTRY = Entry.of("a program")
CODE = bytes(range(256)) * 8

posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX's")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own, not there yet; warnings are said anew."""
    monkeypatch.setenv("DOWNSLOPE_CACHE", str(tmp_path / "programs"))
    monkeypatch.delenv("DOWNSLOPE_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "programs"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(folder):
    assert cache.read(ENTRY) is None and not folder.exists()
    cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) == CODE
    assert cache.read(Entry.of("another")) is None
    assert names(folder) == [ENTRY.name + ".program"]
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(ENTRY.path(folder).stat().st_mode) == 0o600


def test_places_differ_where_parts_differ(monkeypatch):
    places = [Entry.of("a", "bc"), Entry.of("ab", "c"), Entry.of("abc"), Entry.of("abc", "")]
    monkeypatch.setattr(cache, "__version__", "0.0.0")
    places.append(Entry.of("abc"))
    monkeypatch.setattr(cache, "FORMAT", 0)
    places.append(Entry.of("abc"))
    assert len(set(places)) == 6


def damages():
    """File contents that must not be read as ENTRY's: a name, and a function of good contents."""
    yield "empty", lambda data: b""
    yield "header cut", lambda data: data[:50]
    yield "cut", lambda data: data[:-1]
    yield "longer", lambda data: data + b"\0"
    yield "header alone", lambda data: data[: cache.HEADER.size]
    for place in (0, 8, 12, 20, 52, cache.HEADER.size, 1500):
        yield (
            f"bit of byte {place}",
            lambda data, at=place: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :],
        )
    yield "another program's", lambda data: cache._packed(Entry.of("another"), CODE)
    yield "not ours", lambda data: b"\x7fELF" + bytes(3000)


@pytest.mark.parametrize("damage", [d for _, d in damages()], ids=[name for name, _ in damages()])
def test_a_damaged_file_is_ignored_and_replaced(folder, damage):
    cache.write(ENTRY, CODE)
    path = ENTRY.path(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.read(ENTRY) is None
    cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) == CODE


def test_a_file_of_another_format_is_ignored(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache, "FORMAT", 99)
        cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) is None


def unused(words):
    """Neither read nor written, and said once."""
    with pytest.warns(CacheWarning, match=words) as said:
        assert cache.read(ENTRY) is None
        cache.write(Entry.of("new"), CODE)
        assert cache.read(Entry.of("new")) is None
    assert len(said) == 1


@posix
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_others_can_write_to_is_not_used(folder, mode):
    cache.write(ENTRY, CODE)
    folder.chmod(mode)
    unused("others can write")
    assert names(folder) == [ENTRY.name + ".program"]
    with pytest.raises(DownslopeError, match="others can write"):
        cache.clear()
    assert names(folder) == [ENTRY.name + ".program"]
    folder.chmod(0o755)
    assert cache.read(ENTRY) == CODE


@posix
def test_a_folder_of_another_user_is_not_used(folder, monkeypatch):
    cache.write(ENTRY, CODE)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    unused("another user")
    assert cache.describe().refused is not None and cache.describe().programs == 0


@posix
def test_a_link_is_as_safe_as_its_ends(folder, tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    folder.symlink_to(target)
    cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) == CODE and names(target) == [ENTRY.name + ".program"]

    target.chmod(0o777)
    unused("others can write")

    target.chmod(0o700)
    monkeypatch.setattr(cache, "_warned", set())
    real = os.lstat

    def foreign(path, **options):
        found = real(path, **options)
        fields = list(found)
        fields[stat.ST_UID] += Path(path) == folder
        return os.stat_result(fields)

    monkeypatch.setattr(os, "lstat", foreign)
    unused("another user")


def test_a_file_in_the_folder_s_place(folder):
    folder.write_text("hello")
    unused("not a folder")
    assert folder.read_text() == "hello"


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_others_can_write_to_is_not_read(folder, mode):
    cache.write(ENTRY, CODE)
    ENTRY.path(folder).chmod(mode)
    assert cache.read(ENTRY) is None


@posix
def test_a_file_of_another_user_is_not_read(folder, monkeypatch):
    cache.write(ENTRY, CODE)
    real = os.fstat

    def foreign(descriptor):
        fields = list(real(descriptor))
        fields[stat.ST_UID] += 1
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", foreign)
    assert cache.read(ENTRY) is None


@posix
def test_links_and_pipes_are_not_read(folder, tmp_path):
    cache.write(ENTRY, CODE)
    path = ENTRY.path(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.read(ENTRY) is None
    path.unlink()
    os.mkfifo(path)
    assert cache.read(ENTRY) is None
    cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) == CODE


def test_a_full_disk_is_no_error(folder, monkeypatch):
    cache.write(ENTRY, CODE)

    def full(*_):
        raise OSError(28, "No space left on device")

    for place, name in ((cache.tempfile, "mkstemp"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            cache.write(Entry.of("new"), CODE)
        assert cache.read(Entry.of("new")) is None
        assert names(folder) == [ENTRY.name + ".program"]


@posix
def test_a_folder_that_cannot_be_made_is_no_error(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOWNSLOPE_CACHE", str(tmp_path / "file" / "programs"))
    cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) is None and cache.clear() == (0, 0)


@pytest.mark.parametrize("value", ["", "off", "OFF", " "])
def test_switched_off(value, monkeypatch, tmp_path):
    monkeypatch.setenv("DOWNSLOPE_CACHE", value)
    monkeypatch.chdir(tmp_path)
    cache.write(ENTRY, CODE)
    assert cache.read(ENTRY) is None and cache.folder() is None
    assert cache.clear() == (0, 0) and cache.describe().folder is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/downslope/programs"),
        ("linux", {"XDG_CACHE_HOME": "/x/cache"}, "/x/cache/downslope/programs"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/downslope/programs"),
        ("darwin", {}, "~/Library/Caches/downslope/programs"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/downslope/programs"),
        ("win32", {}, "~/AppData/Local/downslope/programs"),
    ],
)
def test_the_platform_s_own_place(platform, variables, expected, monkeypatch):
    for name in ("DOWNSLOPE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.folder() == Path(expected).expanduser()


def aged(folder, *parts):
    """Programs of 1 KiB, the first the one unused for longest."""
    entries = [Entry.of(part) for part in parts]
    for age, entry in zip(range(len(parts), 0, -1), entries, strict=True):
        cache.write(entry, bytes(1024))
        path = entry.path(folder)
        os.utime(path, (path.stat().st_mtime - 100 * age,) * 2)
    return entries


def test_what_was_unused_for_longest_goes_first(folder, monkeypatch):
    first, second, third, fourth = aged(folder, "1", "2", "3", "4")
    assert cache.read(first) is not None  # used: now the youngest
    (folder / "mine.txt").write_bytes(bytes(10_000))
    monkeypatch.setenv("DOWNSLOPE_CACHE_LIMIT", str(3.5 / 1024))
    cache.write(Entry.of("5"), bytes(1024))  # the five files are 1,108 bytes each
    assert cache.read(second) is None and cache.read(third) is None
    assert all(cache.read(entry) is not None for entry in (fourth, first, Entry.of("5")))
    assert (folder / "mine.txt").exists()
    found = cache.describe()
    assert found.programs == 3 and found.size == 3 * (1024 + cache.HEADER.size) <= found.limit


def test_the_newest_stays_though_clocks_differ(folder, monkeypatch):
    (old,) = aged(folder, "1")
    os.utime(old.path(folder), (2**32, 2**32))
    monkeypatch.setenv("DOWNSLOPE_CACHE_LIMIT", str(1.5 / 1024))
    cache.write(ENTRY, bytes(1024))
    assert cache.read(old) is None and cache.read(ENTRY) is not None


def test_a_program_larger_than_all_is_not_kept(folder, monkeypatch):
    cache.write(ENTRY, CODE)
    monkeypatch.setenv("DOWNSLOPE_CACHE_LIMIT", "0.003")
    cache.write(Entry.of("large"), bytes(10_000))
    assert cache.read(Entry.of("large")) is None and cache.read(ENTRY) == CODE


@pytest.mark.parametrize("value", ["much", "-1", "nan", "inf"])
def test_a_wrong_limit_is_an_error(value, monkeypatch):
    monkeypatch.setenv("DOWNSLOPE_CACHE_LIMIT", value)
    with pytest.raises(InputError, match=f"number of MiB, got '{value}'"):
        cache.limit()


def test_clear_removes_ours_alone(folder):
    aged(folder, "1", "2")
    for name in (".downslope-abc.part", "mine.part", "notes.program", "study.json"):
        (folder / name).write_bytes(b"12345")
    assert cache.describe().programs == 2
    assert cache.clear() == (3, 2 * (1024 + cache.HEADER.size) + 5)
    assert names(folder) == ["mine.part", "notes.program", "study.json"]
    assert cache.describe().programs == cache.describe().size == 0


def test_abandoned_temporary_files_go(folder):
    cache.write(ENTRY, CODE)
    old, new = folder / ".downslope-old.part", folder / ".downslope-new.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.write(Entry.of("new"), CODE)
    assert not old.exists() and new.exists()


def many(barrier, failures):
    """Write and read one entry again and again; every reading is whole."""
    barrier.wait(timeout=60)
    for _ in range(200):
        cache.write(ENTRY, CODE * 40)
        if cache.read(ENTRY) != CODE * 40:
            failures.put("read something else")


@pytest.mark.skipif(sys.platform == "win32", reason="a file being read cannot be replaced there")
def test_processes_write_the_same_program_at_once(folder):
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(2), context.Queue()
    processes = [context.Process(target=many, args=(barrier, failures)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert failures.empty()
    assert cache.read(ENTRY) == CODE * 40 and names(folder) == [ENTRY.name + ".program"]


def test_a_look_at_the_cache_needs_neither_torch_nor_llvm():
    code = (
        "import sys; from downslope.engines.fused import cache; cache.describe(); "
        "sys.exit(bool({'torch', 'llvmlite'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
