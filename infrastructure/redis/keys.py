"""The keys of generations; what stands in braces decides the slot, so one script can touch all of one question's."""

from domain.breaker import model_of, provider_of
from domain.generation import Opened


def tag_of(opened: Opened) -> str:
    """What a generation's keys share: its question, or itself when nobody else may join it."""
    return opened.fingerprint if opened.is_shared else opened.generation_id


def lease_key(tag: str) -> str:
    """Hash: who leads (id, epoch, owner), whether it may be joined, and the request, for whoever has to go on.

    `unfollowed_ms` is since when nobody has been seen to follow: 0 if nobody ever has, none while somebody may.
    """
    return f"weir:gen:{{{tag}}}:lease"


def own_lease_key(tag: str, generation_id: str) -> str:
    """The same, of a generation that answers the question beside the one that has the question's lease."""
    return f"{lease_key(tag)}:{generation_id}"


def log_key(tag: str, generation_id: str) -> str:
    """Stream: record number N is entry N+1; the one that seals has a field more."""
    return f"weir:gen:{{{tag}}}:log:{generation_id}"


def tail_channel(tag: str, generation_id: str) -> str:
    """Where it is said that there are more records."""
    return f"weir:gen:{{{tag}}}:tail:{generation_id}"


def followed_key(tag: str) -> str:
    """There while somebody follows on an instance that does not lead."""
    return f"weir:gen:{{{tag}}}:followed"


def stream_key(generation_id: str) -> str:
    """The tag of a stream's generation."""
    return f"weir:stream:{{{generation_id}}}"


def response_key(fingerprint: str) -> str:
    """A stored answer; in its question's slot, so that whoever claims that is told whether there is one."""
    return f"weir:cache:response:{{{fingerprint}}}"


def instance_key(instance_id: str) -> str:
    """There while the instance lives."""
    return f"weir:instance:{instance_id}"


STOPS = "weir:events:stop"
"""Channel of the ids of generations that are to be stopped."""


def circuit_key(circuit: str) -> str:
    """Hash of a provider: what each model's circuit last became (state), when (since, until), and who said so."""
    return f"weir:circuit:{{{provider_of(circuit)}}}"


def probe_key(circuit: str) -> str:
    """There while some instance probes the route."""
    return f"weir:circuit:{{{provider_of(circuit)}}}:probe:{model_of(circuit)}"
