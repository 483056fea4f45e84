"""What calls have used and cost: by their providers' count, else by our estimate, which then says so.

A call that gave nothing of an answer is not booked: providers do not charge what they refused, and of what they never
sent they say nothing. One that was cut has been read and written for, and is; one that we ended because another was
faster has been read for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.chat import ChatRequest, Chunk, Json, Usage
from domain.selection import Route
from domain.tokens import estimated_prompt_tokens, estimated_tokens

ESTIMATED: Mapping[str, Json] = {"estimated": True}
"""What the details of a usage say that is not, or not only, the providers' count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What one call at `route` has used, and what that costs by the catalogue's prices."""

    route: Route
    usage: Usage

    @property
    def cost_usd(self) -> float:
        """Its price."""
        return self.route.cost_usd(self.usage.prompt_tokens, self.usage.completion_tokens)


def estimated_usage(request: ChatRequest, chunks: Sequence[Chunk]) -> Usage:
    """About what a call has used that was asked `request` and gave `chunks`; thoughts and tool calls count too."""
    beside = "".join(str(chunk.delta) for chunk in chunks if chunk.delta)
    read = estimated_prompt_tokens(request)
    written = estimated_tokens("".join([chunk.content for chunk in chunks])) + estimated_tokens(beside)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written, details=ESTIMATED)


def total_usage(bookings: Sequence[Booking]) -> Usage | None:
    """What all calls together have used; of one call with its provider's other counts; None of none."""
    usages = [booking.usage for booking in bookings]
    if len(usages) <= 1:
        return usages[0] if usages else None
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        total_tokens=sum(usage.total_tokens for usage in usages),
        details=ESTIMATED if any("estimated" in usage.details for usage in usages) else {},
    )
