"""Who asks: the user of a key, or whoever is at an address."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from domain.chat import ADDRESS, Caller
from domain.errors import KeyRefused, Unauthorized
from domain.keys import ApiKey, id_in
from domain.ports import KeyStore

ANONYMOUS = "anonymous"
"""What clients send that cannot send no key, and have none."""

_WHERE = "Authorization: Bearer KEY or X-API-Key: KEY"
_KEPT = 10_000


class Callers:
    """Knows who asks. Without a `store` there are no keys: whatever is given for one says nothing.

    With `is_required` nobody asks without one.
    """

    def __init__(self, *, store: KeyStore | None, is_required: bool, unix_now: Callable[[], float]) -> None:
        self._store = store
        self._is_required = is_required
        self._unix_now = unix_now

    async def caller(self, given: str | None, address: str) -> Caller:
        """Who asks from `address` with the key that was `given`, if any was.

        Raises:
            Unauthorized: a key is needed, or what was given is none that can be used.
            KeysUnavailable: nobody can tell now.
        """
        if given is None or given == ANONYMOUS:
            return self._anonymous(address)
        key_id = id_in(given)
        if self._store is None:
            return self._without_keys(key_id, address)
        if key_id is None:
            raise KeyRefused(f"That is no API key: one begins with weir_ and goes into {_WHERE}.")
        key = await self._store.find(key_id)
        if key is None or not key.is_of(given):
            raise KeyRefused("This API key is not known.")
        self._check(key)
        return key.caller

    def _anonymous(self, address: str) -> Caller:
        if self._is_required:
            raise Unauthorized(f"An API key is needed: {_WHERE}.")
        return _at(address)

    def _without_keys(self, key_id: str | None, address: str) -> Caller:
        """Who asks where there are no keys: one that is meant as a key of ours is not passed over in silence."""
        if key_id is not None:
            raise KeyRefused("No API keys are kept here; without one you ask as your address.")
        return self._anonymous(address)

    def _check(self, key: ApiKey) -> None:
        if key.revoked_at_s is not None:
            raise KeyRefused("This API key was revoked.")
        if key.expires_at_s is not None and key.expires_at_s <= self._unix_now():
            ended = datetime.fromtimestamp(key.expires_at_s, UTC)
            raise KeyRefused(f"This API key has expired on {ended:%Y-%m-%d at %H:%M:%S} UTC.")


@lru_cache(_KEPT)
def _at(address: str) -> Caller:
    """Whoever is there; no user of a key has a name with a colon."""
    return Caller(user=ADDRESS + address)
