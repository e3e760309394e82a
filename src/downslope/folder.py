"""Files that are there whole or not at all, and a folder only one process writes to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from downslope.errors import InputError, StudyError, StudyLockedError

TEMPORARY = ".part"


def new_file(path: str | Path, kind: str, endings: Sequence[str]) -> Path:
    """The path of a file that is to be written.

    Args:
        kind: what it will be, a word for messages: "report".

    Raises:
        InputError: if it is no path or a folder, has another ending, or its folder is not there.
    """
    if not isinstance(path, str | Path):
        raise InputError(
            f"a {kind}'s path must be a string or a Path, got {type(path).__name__}: give it a "
            f"file's name, such as {kind + endings[0]!r}"
        )
    place = Path(path)
    if place.is_dir():
        raise InputError(
            f"{str(path)!r} is a folder: give the {kind} a file's name, such as "
            f"{str(place / (kind + endings[0]))!r}"
        )
    if place.suffix.lower() not in endings:
        raise InputError(f"a {kind}'s name must end in {' or '.join(endings)}, got {str(path)!r}")
    if not place.absolute().parent.is_dir():
        raise InputError(f"there is no folder {str(place.parent)!r} to write {place.name!r} into")
    return place


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, bring it to the disk, then give it its name."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)
    if sys.platform != "win32":  # there, a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    write_whole(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


class Lock:
    """An operating-system lock on a file; it goes with the process that holds it."""

    def __init__(self, path: Path) -> None:
        try:
            self.file: IO[bytes] = open(path, "ab")  # noqa: SIM115 (held as long as the lock)
        except OSError as error:
            raise StudyError(f"cannot write to {path.parent}: {error.strerror or error}") from error
        try:
            _take(self.file)
        except OSError as error:
            self.file.close()
            raise StudyLockedError(
                f"another process is writing to the study {str(path.parent)!r}: "
                "wait for it, or give another folder"
            ) from error

    def release(self) -> None:
        """Let others write."""
        self.file.close()


def _take(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
