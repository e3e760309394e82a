"""Compiled programs on disk, so that a second process need not compile them again.

What is read here is executed. So the folder is the user's own and no one else can write to it, or
it is not used; each file is opened without following a link, must be a plain file of the user's,
and carries the hash of its contents. Losing a file, or all of them, costs compile time only, so
nothing that goes wrong with the disk is an error.

The environment variable DOWNSLOPE_CACHE names another folder (``off``, or nothing: none at all),
DOWNSLOPE_CACHE_LIMIT another size in MiB.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from downslope import __version__
from downslope.errors import DownslopeError, InputError

FOLDER_VARIABLE = "DOWNSLOPE_CACHE"
LIMIT_VARIABLE = "DOWNSLOPE_CACHE_LIMIT"
DEFAULT_LIMIT = 256  # MiB

FORMAT = 1
MAGIC = b"downslop"
HEADER = struct.Struct("<8sIQ32s32s")  # magic, format, length, hash of the key, of the contents

PROGRAM, TEMPORARY = ".program", ".part"
OURS = re.compile(rf"[0-9a-f]{{64}}\{PROGRAM}|\.downslope-.*\{TEMPORARY}")
ABANDONED = 3600.0  # seconds after which a temporary file has no writer any more

_PRIVATE = 0o700
_OTHERS_WRITE = 0o022
_OPENING = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe in the file's place must not hold us up
    | getattr(os, "O_BINARY", 0)
)


class CacheWarning(UserWarning):
    """The folder of compiled programs is not safe to use, so it is not used."""


@dataclass(frozen=True)
class Entry:
    """A program's place, from the hash of all that it depends on."""

    name: str

    @classmethod
    def of(cls, *parts: str) -> Entry:
        """The place for these parts; the version and the format of the files count too."""
        whole = hashlib.sha256()
        for part in (str(FORMAT), __version__, *parts):
            data = part.encode()
            whole.update(len(data).to_bytes(8, "little") + data)  # ("a", "bc") is not ("ab", "c")
        return cls(whole.hexdigest())

    def path(self, folder: Path) -> Path:
        """Where it is in the folder."""
        return folder / (self.name + PROGRAM)


@dataclass(frozen=True)
class Contents:
    """What is on disk. `folder` is None where there is to be none; sizes are in bytes."""

    folder: Path | None
    programs: int
    size: int
    limit: int
    refused: str | None
    """Why the folder is not used, or None."""


def folder() -> Path | None:
    """Where compiled programs are kept; the folder may not be there yet. None: nowhere."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen is not None:
        return None if chosen.strip().lower() in ("", "off") else Path(chosen).expanduser()
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "")
        if not base.is_absolute():  # as the XDG specification asks
            base = home / ".cache"
    return base / "downslope" / "programs"


def limit() -> int:
    """How large all programs may be together, in bytes.

    Raises:
        InputError: DOWNSLOPE_CACHE_LIMIT is not a number of MiB.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT)
    try:
        size = float(text)
        if not 0 <= size < 2**40:
            raise ValueError
    except ValueError:
        raise InputError(f"{LIMIT_VARIABLE} must be a number of MiB, got {text!r}") from None
    return int(size * 2**20)


def read(entry: Entry) -> bytes | None:
    """What was written for this entry, or None if there is nothing that can be trusted."""
    where = _usable()
    if where is None:
        return None
    try:
        with open(os.open(entry.path(where), _OPENING), "rb") as file:
            found = os.fstat(file.fileno())
            if not (stat.S_ISREG(found.st_mode) and _is_own(found) and _is_closed(found)):
                return None
            contents = _unpacked(entry, file.read())
    except OSError:
        return None
    if contents is not None:
        with contextlib.suppress(OSError):
            os.utime(entry.path(where))  # used now: the last to go
    return contents


def write(entry: Entry, contents: bytes) -> None:
    """Keep the contents, whole or not at all, and remove what was unused for longest."""
    allowed = limit()
    where = _usable(create=True)
    if where is None or HEADER.size + len(contents) > allowed:
        return
    try:
        descriptor, temporary = tempfile.mkstemp(TEMPORARY, ".downslope-", where)
    except OSError:
        return
    try:
        with open(descriptor, "wb") as file:
            file.write(_packed(entry, contents))
        os.replace(temporary, entry.path(where))
    except OSError:  # a full disk; on Windows, a file that another process reads
        return
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    _trim(where, allowed, entry)


def clear() -> tuple[int, int]:
    """Remove all compiled programs, and nothing else.

    Returns:
        How many files there were, and their bytes.

    Raises:
        DownslopeError: The folder is not safe to use.
    """
    now = describe()
    if now.refused is not None:
        raise DownslopeError(now.refused)
    gone = [size for path, size, _ in _files(now.folder) if _removed(path)]
    return len(gone), sum(gone)


def describe() -> Contents:
    """Where programs are kept, how many, how large, and how large they may become."""
    where = folder()
    refused = None if where is None else _refusal(where)
    found = [] if refused else [f for f in _files(where) if f[0].suffix == PROGRAM]
    return Contents(where, len(found), sum(size for _, size, _ in found), limit(), refused)


def _packed(entry: Entry, contents: bytes) -> bytes:
    key = bytes.fromhex(entry.name)
    return (
        HEADER.pack(MAGIC, FORMAT, len(contents), key, hashlib.sha256(contents).digest()) + contents
    )


def _unpacked(entry: Entry, data: bytes) -> bytes | None:
    """The contents of a file that is undamaged and is this entry's."""
    contents = data[HEADER.size :]
    return contents if data == _packed(entry, contents) else None


def _usable(create: bool = False) -> Path | None:
    """The folder, if programs may be read from it and written to it."""
    where = folder()
    if where is None:
        return None
    if create:
        with contextlib.suppress(OSError):
            where.parent.mkdir(parents=True, exist_ok=True)
            where.mkdir(mode=_PRIVATE, exist_ok=True)
    refused = _refusal(where)
    if refused is not None:
        _warn(refused)
        return None
    return where if where.is_dir() else None


def _refusal(where: Path) -> str | None:
    """Why a folder is not safe to read programs from, or None; one that is not there is safe."""
    try:
        itself, target = os.lstat(where), os.stat(where)
    except OSError:
        return None
    name = repr(str(where))
    if not stat.S_ISDIR(target.st_mode):
        return f"compiled programs are not kept: {name} is not a folder"
    if not (_is_own(itself) and _is_own(target) and _is_closed(target)):
        return (
            f"compiled programs are not kept: {name} belongs to another user or others can write "
            f"to it; make it yours alone (chmod 700), or name another folder in {FOLDER_VARIABLE}"
        )
    return None


def _is_own(found: os.stat_result) -> bool:
    return sys.platform == "win32" or found.st_uid == os.getuid()


def _is_closed(found: os.stat_result) -> bool:
    """Whether only its owner can write; on Windows the profile's folder sees to that."""
    return sys.platform == "win32" or not found.st_mode & _OTHERS_WRITE


_warned: set[str] = set()  # sentences said: once a process is enough


def _warn(sentence: str) -> None:
    if sentence not in _warned:
        _warned.add(sentence)
        warnings.warn(sentence, CacheWarning, stacklevel=2)


def _trim(where: Path, allowed: int, newest: Entry) -> None:
    """Remove what was unused for longest until the rest is small enough, and what was abandoned."""
    kept = []
    for path, size, used in _files(where):
        if path.suffix == TEMPORARY:
            if time.time() - used > ABANDONED:
                _removed(path)
        else:
            kept.append((used, size, path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= allowed:
            return
        if path != newest.path(where) and _removed(path):
            total -= size


def _files(where: Path | None) -> Iterator[tuple[Path, int, float]]:
    """Our files in the folder: path, bytes, when last used (seconds)."""
    if where is None:
        return
    with contextlib.suppress(OSError), os.scandir(where) as found:
        for file in found:
            if OURS.fullmatch(file.name):
                with contextlib.suppress(OSError):  # another process may have removed it
                    about = file.stat(follow_symlinks=False)
                    yield Path(file.path), about.st_size, about.st_mtime


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.unlink()
        return True
    return False
