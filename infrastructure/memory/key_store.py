"""API keys in a file that one process serves by, and any may change."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from domain.errors import KeysUnavailable
from domain.events import ComponentChanged, Publish
from domain.keys import ApiKey
from infrastructure.memory.key_file import KeyFileError, Keys, change_keys, read_keys

LOOK_S = 0.25
"""How often the file is looked at, while it is asked for keys."""

TRUST_S = 900.0
"""For so long keys that were read go on working when the file cannot be read any more."""

COMPONENT = "keys"


class FileKeyStore:
    """The keys of the file at `path`, read again when it has changed."""

    def __init__(self, path: Path, *, publish: Publish, clock: Callable[[], float]) -> None:
        self._path = path
        self._publish = publish
        self._clock = clock
        self._keys: Keys = {}
        self._looked_at_s = self._good_at_s = -math.inf
        self._signature: tuple[int, ...] | None = None
        self._is_degraded = False

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of that id; None: there is none.

        Raises:
            KeysUnavailable: the file cannot be read, and could not for long.
        """
        return self._current().get(key_id)

    async def add(self, key: ApiKey) -> bool:
        """The key is in the file; False: there is one of its id.

        Raises:
            KeysUnavailable: the file cannot be written.
        """
        is_added = False

        def add(keys: Keys) -> Keys:
            nonlocal is_added
            is_added = key.key_id not in keys
            return {**keys, key.key_id: key} if is_added else keys

        self._change(add)
        return is_added

    async def revoke(self, key_id: str, at_s: float) -> ApiKey | None:
        """The key of that id, which is revoked; None: there is none.

        Raises:
            KeysUnavailable: the file cannot be written.
        """
        revoked: ApiKey | None = None

        def revoke(keys: Keys) -> Keys:
            nonlocal revoked
            known = keys.get(key_id)
            if known is None:
                return keys
            revoked = known if known.revoked_at_s is not None else replace(known, revoked_at_s=at_s)
            return {**keys, key_id: revoked}

        self._change(revoke)
        return revoked

    async def all(self) -> list[ApiKey]:
        """Every key, the oldest first.

        Raises:
            KeysUnavailable: the file cannot be read.
        """
        try:
            keys = read_keys(self._path)
        except KeyFileError as error:
            raise KeysUnavailable from error
        return sorted(keys.values(), key=lambda key: key.created_at_s)

    def _current(self) -> Keys:
        now_s = self._clock()
        if now_s - self._looked_at_s >= LOOK_S:
            self._looked_at_s = now_s
            self._look(now_s)
        if now_s - self._good_at_s >= TRUST_S:
            raise KeysUnavailable
        return self._keys

    def _look(self, now_s: float) -> None:
        """What the file has is known, or it is told that it cannot be read."""
        try:
            signature = self._signature_now()
            if signature != self._signature:
                self._keys = read_keys(self._path)
        except (KeyFileError, OSError) as error:
            self._tell(error)
            return
        self._signature, self._good_at_s = signature, now_s
        self._tell(None)

    def _signature_now(self) -> tuple[int, ...]:
        """What is another one after every change."""
        stat = self._path.stat()
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _tell(self, error: Exception | None) -> None:
        """Whether keys can be read is news when it was otherwise."""
        if self._is_degraded != (error is not None):
            self._is_degraded = error is not None
            self._publish(
                ComponentChanged(
                    component=COMPONENT,
                    is_degraded=self._is_degraded,
                    error=error,
                    reason=str(error) if error else None,
                )
            )

    def _change(self, change: Callable[[Keys], Keys]) -> None:
        try:
            change_keys(self._path, change)
        except KeyFileError as error:
            raise KeysUnavailable from error
        self._looked_at_s = -math.inf
