"""What answers take of their askers' limits: tokens a minute, US dollars a day.

What an answer will take is not known before its end. So an estimate is reserved at its start, which keeps many that
begin at once within the limit together, and at its end the reservation becomes what was used.
"""

from collections.abc import Mapping, Sequence

from domain.chat import Caller, ChatRequest
from domain.generation import Sealed
from domain.selection import Route
from domain.tokens import estimated_prompt_tokens
from domain.values import value

ANSWER_TOKENS = 512
"""What an answer is taken to be long when its asker sets no bound."""


@value
class Use:
    """So many tokens of prompt and answer, at that price."""

    tokens: int
    usd: float


NOTHING = Use(tokens=0, usd=0.0)


@value
class UsageLimits:
    """A caller's limits; None: no limit."""

    tokens_per_minute: int | None
    budget_usd_per_day: float | None


@value
class Reservation:
    """What `user` may use for one answer; `id` tells it from others. One that `is_local` only this process knows."""

    user: str
    id: str
    use: Use
    limits: UsageLimits
    is_local: bool = False


def usage_limits(caller: Caller, tiers: Mapping[str, int]) -> UsageLimits | None:
    """The limits of the caller's key, or of its tier in `tiers` (0: no limit); None: there are none."""
    tokens = caller.tokens_per_minute or tiers.get(caller.tier) or None
    if caller.is_operator or (tokens is None and caller.budget_usd_per_day is None):
        return None
    return UsageLimits(tokens_per_minute=tokens, budget_usd_per_day=caller.budget_usd_per_day)


def estimate(request: ChatRequest, routes: Sequence[Route]) -> Use:
    """What the answer may take, on the dearest of the routes."""
    options = request.options
    prompt = estimated_prompt_tokens(request)
    longest = options.get("max_completion_tokens") or options.get("max_tokens") or ANSWER_TOKENS
    answer = int(longest) * request.choice_count
    usd = max((route.cost_usd(prompt, answer) for route in routes), default=0.0)
    return Use(tokens=prompt + answer, usd=usd)


def used(sealed: Sealed) -> Use | None:
    """What the answer took; None: the provider did not say, and the estimate stands."""
    if sealed.usage is not None:
        return Use(tokens=sealed.usage.total_tokens, usd=sealed.cost_usd or 0.0)
    return None if sealed.chunk_count else NOTHING
