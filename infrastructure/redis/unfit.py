"""What stands in the way of using a Redis that is there, in words; they have nothing of its address or our password."""

import re
from collections.abc import Iterator

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AuthenticationError

OLDEST = (6, 2)
NEEDED = f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"
_REFUSED = (
    "it refuses our user and password: redis://:PASSWORD@HOST, or redis://USER:PASSWORD@HOST for an ACL's user, is "
    "right"
)
_REFUSED_BY_SENTINELS = (
    "its sentinels refuse our user and password, which are their own: behind ? sentinel_password=PASSWORD, and for an "
    "ACL's user sentinel_username=USER, is right"
)
_WORDS = {
    "mode is not enabled": "it is no cluster: redis:// is right",
    "unknown command .SENTINEL": "it is no sentinel: redis:// is right",
    "unknown command .EVAL": "it is a sentinel: redis+sentinel://HOST[:PORT],…/SERVICE is right",
    "unknown command .HELLO": f"it is older than Redis 6: {NEEDED}",
    "DB index is out of range": "it has no database of that number: a smaller one, or none, is right",
    "SELECT is not allowed in cluster": "it is one node of a cluster: redis+cluster:// is right",
    "WRONG_VERSION_NUMBER": "it speaks no TLS, which a scheme with a second s asks for",
    "(?i)Protocol error": "it is no Redis",
    "read only replica": "it is a replica, which nobody can write to: its primary's address is right",
    "certificate has expired": "its certificate has expired",
    "certificate is not valid for": "its certificate is not for the name or address that it has in our URL, or in what "
    "its sentinels or its cluster say",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted: ?ssl_ca_certs=FILE tells who may have signed it",
    "NO_CERTIFICATE_OR_CRL_FOUND": "our file of ssl_ca_certs has no certificate",
}
"""What they say who know nothing of what we ask for, or (6.2) tell of it as an error of a script's; as patterns."""


def why_unfit(failure: BaseException) -> str | None:
    """Why who answers there will not do: another address, password, certificate or server is needed; None: unknown."""
    said = " ".join(map(str, chain(failure)))
    for words, sentence in _WORDS.items():
        if re.search(words, said):
            return sentence
    if isinstance(failure, MasterNotFoundError) and isinstance(failure.__cause__, AuthenticationError):
        return _REFUSED_BY_SENTINELS
    return _REFUSED if any(isinstance(each, AuthenticationError) for each in chain(failure)) else None


def chain(failure: BaseException) -> Iterator[BaseException]:
    """It, and what it comes from; each once, for one may be raised from another that it came of."""
    seen: list[BaseException] = []
    each: BaseException | None = failure
    while each is not None and each not in seen:
        yield each
        seen.append(each)
        each = each.__cause__ or each.__context__
