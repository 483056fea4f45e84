"""What a provider's protocol has to say, for the endpoint to speak it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from infrastructure.simulator.behaviour import Fault
from infrastructure.simulator.completion import Answer, Ask, Json
from infrastructure.simulator.script import Script


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error in the provider's own form."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request gets `refusal` instead of an answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where a provider is found, and what it says while a request waits in its queue.

    Attributes:
        base_path: of the URL that the SDK is given.
        stream_keepalive: sent again and again before a streamed answer; None where the provider is silent then.
        body_keepalive: the same before an answer that is not streamed.
    """

    name: str
    base_path: str = ""
    completion_paths: tuple[str, ...]
    model_paths: tuple[str, ...]
    stream_keepalive: bytes | None = None
    body_keepalive: bytes | None = None


class Dialect(Protocol):
    """One provider's protocol."""

    profile: Profile

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the key that the client sent."""
        ...

    def wrong_key(self, key: str | None) -> Refusal:
        """Return the answer to a key that is missing or not valid."""
        ...

    def wrong_request(self, message: str, param: str | None = None) -> Refusal:
        """Return the answer to a request that cannot be right."""
        ...

    def wrong_path(self, method: str, path: str) -> Refusal:
        """Return the answer where there is nothing."""
        ...

    def unknown_model(self, model: str) -> Refusal:
        """Return the answer to a model that the provider does not have."""
        ...

    def refusal(self, fault: Fault, model: str, retry_after_s: float | None) -> Refusal | None:
        """Return the error that `fault` is, None when it is not one."""
        ...

    def ask(self, path: Mapping[str, str], body: Json) -> Ask:
        """Return what is asked.

        Raises:
            Refused: the provider would not accept it.
        """
        ...

    def stream_headers(self) -> dict[str, str]:
        """Return the headers of a streamed answer."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers of every other response."""
        ...

    def streamed(self, ask: Ask, answer: Answer) -> Script:
        """Return the answer as a stream's body."""
        ...

    def whole(self, ask: Ask, answer: Answer) -> Json:
        """Return the answer as one JSON value."""
        ...

    def models(self) -> Json:
        """Return the list of models as a JSON value."""
        ...
