"""Who has asked, what became of it, and what it took: one entry for each request, without a word of what was said."""

from domain.values import value


@value
class AuditEntry:
    """One request that is over, at `at_s` (Unix time).

    `outcome` is done, left (the client went before the end), failed or refused; the last two for the reason that `code`
    names. `requested` is the catalogue's model, `model` the provider's. The tokens are the answer's, whoever caused it;
    `cost_usd` is what this request has cost, `saved_usd` what it would have, had the answer not been shared. None: not
    known, or none.
    """

    at_s: float
    thread_id: str
    user: str
    tenant: str
    tier: str
    outcome: str
    duration_ms: float
    code: str | None = None
    stream_id: str | None = None
    requested: str | None = None
    provider: str | None = None
    model: str | None = None
    cache: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    is_estimated: bool = False
    cost_usd: float | None = 0.0
    saved_usd: float = 0.0


@value
class Audited:
    """An entry that is in the trail, at `position`, which names it."""

    position: str
    entry: AuditEntry
