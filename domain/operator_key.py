"""The key that makes a caller an operator."""

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """A key of which only a digest is kept: it can be compared with, and not shown."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, key: str) -> "OperatorKey":
        """What to compare with `key`."""
        return cls(_digest(key))

    def matches(self, given: str) -> bool:
        """Whether that is the key; how much of it is right makes no difference to the time this takes."""
        return hmac.compare_digest(_digest(given), self.digest)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
