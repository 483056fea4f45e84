"""Stored answers of which only the outside matters."""

from domain.generation import Generation, Opened
from domain.ports import Recording


def recording(model: str, scope: str, sealed_at_s: float) -> Recording:
    """An answer of that model, shared in that scope, that was whole at that time."""
    opened = Opened(
        generation_id="g", fingerprint="f", created_at_s=0.0, thread_id="t", user="u", scope=scope, model=model
    )
    return Recording(Generation(opened), sealed_at_s)
