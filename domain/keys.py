"""API keys: what one is, what its text looks like, and who asks with it.

A key's text is weir_ID_SECRET. The ID finds the key; the secret has 190 random bits. Of the text only a digest is kept.
"""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

from domain.chat import Caller
from domain.limiting import Rate

TIERS = ("anonymous", "standard", "premium")

KEY_ID = re.compile(r"[0-9a-z]{12}")
_TEXT = re.compile(rf"weir_({KEY_ID.pattern})_[0-9A-Za-z]{{32}}")
_NAME = re.compile(r"[A-Za-z0-9._@+-]{1,100}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MODEL = re.compile(r"[!-~]{1,200}")
_LETTERS = string.ascii_lowercase + string.digits
_ALL_LETTERS = string.ascii_letters + string.digits
_CIRCLES = frozenset({"shared", "tenant", "user"})
_MOST_TOKENS = 10**12
_MOST_USD = 10.0**9
_LAST_S = 253_402_300_799
"""The last second of the year 9999 (Unix seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, without its text: whose it is, and what may be asked with it. Times are Unix seconds.

    `scope` is the tenant within which its answers are shared; empty: none. `caller` is who asks with it: a user is
    named within its scope, so that two of one name in two scopes have nothing in common.
    """

    key_id: str
    digest: str = field(repr=False)
    user: str
    tier: str
    created_at_s: float
    scope: str = ""
    expires_at_s: float | None = None
    rate: Rate | None = None
    tokens_per_minute: int | None = None
    budget_usd_per_day: float | None = None
    models: frozenset[str] | None = None
    revoked_at_s: float | None = None
    caller: Caller = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, is_right, needed in self._claims():
            if not is_right:
                raise ValueError(f"{name}: {needed}")
        object.__setattr__(self, "caller", self._caller())

    def is_of(self, text: str) -> bool:
        """Whether that is the key's text; how much of it is right makes no difference to the time this takes."""
        return hmac.compare_digest(digest_of(text), self.digest)

    def _claims(self) -> tuple[tuple[str, bool, str], ...]:
        name = "1 to 100 of A-Z a-z 0-9 . _ @ + - are needed"
        times = (self.created_at_s, self.expires_at_s, self.revoked_at_s)
        tokens, budget_usd, models = self.tokens_per_minute, self.budget_usd_per_day, self.models
        return (
            ("id", bool(KEY_ID.fullmatch(self.key_id)), "12 of a-z 0-9 are needed"),
            ("sha256", bool(_DIGEST.fullmatch(self.digest)), "64 of 0-9 a-f are needed"),
            ("user", bool(_NAME.fullmatch(self.user)), name),
            ("scope", not self.scope or bool(_NAME.fullmatch(self.scope)), name),
            ("scope", self.scope not in _CIRCLES, "the name of a tenant is needed, such as acme"),
            ("tier", self.tier in TIERS, f"one of {', '.join(TIERS)} is needed"),
            ("tokens_per_minute", tokens is None or 0 < tokens <= _MOST_TOKENS, f"1 to {_MOST_TOKENS} are possible"),
            (
                "budget_usd_per_day",
                budget_usd is None or 0 < budget_usd <= _MOST_USD,
                f"more than 0, to {_MOST_USD:.0f}, are possible",
            ),
            ("models", models is None or _can_be_models(models), "names of models are needed, such as gpt-4o-mini"),
            ("time", all(at_s is None or 0 <= at_s <= _LAST_S for at_s in times), "a time of 1970 to 9999 is needed"),
        )

    def _caller(self) -> Caller:
        return Caller(
            user=f"{self.scope}/{self.user}" if self.scope else self.user,
            tenant=self.scope,
            tier=self.tier,
            rate=self.rate,
            tokens_per_minute=self.tokens_per_minute,
            budget_usd_per_day=self.budget_usd_per_day,
            models=self.models,
        )


def _can_be_models(models: frozenset[str]) -> bool:
    return bool(models) and all(_MODEL.fullmatch(model) for model in models)


def new_text() -> tuple[str, str]:
    """A text that no key had before, and the id in it."""
    key_id = "".join(secrets.choice(_LETTERS) for _ in range(12))
    return f"weir_{key_id}_{''.join(secrets.choice(_ALL_LETTERS) for _ in range(32))}", key_id


def id_in(text: str) -> str | None:
    """The id of the key whose text that is, should it be one; None: it cannot be."""
    found = _TEXT.fullmatch(text)
    return found[1] if found else None


def digest_of(text: str) -> str:
    """SHA-256 of a key's text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
