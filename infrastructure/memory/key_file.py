"""A file of API keys: one a line, replaced as a whole, so that whoever reads it never sees half of a change."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from domain.keys import ApiKey
from infrastructure.key_records import decode_key, encode_key

Keys = Mapping[str, ApiKey]
"""By id, in the order of the file."""


class KeyFileError(Exception):
    """The file cannot be read or written; the text says where it is wrong."""


def read_keys(path: Path) -> Keys:
    """The keys of the file; empty lines are passed over.

    Raises:
        KeyFileError: it cannot be read, or a line is no key.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        can_be_made = isinstance(error, FileNotFoundError) and path.parent.is_dir()
        raise KeyFileError(f"{path}: {error.strerror}{'; weir keys create makes it' * can_be_made}") from error
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key = decode_key(line)
        except ValueError as error:
            raise KeyFileError(f"{path}: line {number}: {error}") from error
        if key.key_id in keys:
            raise KeyFileError(f"{path}: line {number}: id: an earlier line has it too")
        keys[key.key_id] = key
    return keys


def change_keys(path: Path, change: Callable[[Keys], Keys]) -> None:
    """What `change` has made of the keys is in the file, which is made if there is none; changes wait for each other.

    Raises:
        KeyFileError: it cannot be read or written; nothing is changed.
    """
    path = Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_file():
            raise KeyFileError(f"{path}: not a file")  # a device would be replaced by one, and a pipe never end
        with _locked(path.parent):
            keys = read_keys(path) if path.exists() else {}
            _replace(path, change(keys))
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else changes a file of keys in that folder: the file itself is another one after each change."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, keys: Keys) -> None:
    """The file has these keys and the mode and owner that it had; a new one is for its owner's eyes alone."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                before = path.stat()
                os.fchmod(descriptor, before.st_mode & 0o777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            file.writelines(encode_key(key) + b"\n" for key in keys.values())
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
