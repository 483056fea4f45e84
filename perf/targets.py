"""How each kind of server is asked, as the load generator needs it."""

import json
import tomllib
from urllib.parse import urlsplit

from perf.connections import Target
from perf.processes import PROJECT

CHUNK_COUNTS = {"ten": 10, "fifty": 50, "two_hundred": 200, "thinking": 50, "brisk": 50}


def named_events(url: str, model: str, query: str, **more: str) -> Target:
    """POST /v1/stream, with what more there is in the body."""
    body = {"model": model, "query": query, **more}
    return _target(url, "/v1/stream", body, token="event: chunk\n", ending="event: complete\n")


def completion_chunks(url: str, model: str, query: str) -> Target:
    """POST /v1/chat/completions, as a stream."""
    return _completions(url, "/v1/chat/completions", model, query)


def provider(base_url: str, model: str, query: str) -> Target:
    """The simulated provider itself, asked as the service asks it."""
    parts = urlsplit(base_url)
    return _completions(base_url, f"{parts.path}/chat/completions", provider_model(model), query)


def relay(url: str, model: str, query: str) -> Target:
    """The bare relay, which is sent what the provider is to be sent."""
    return _completions(url, "/", provider_model(model), query)


def provider_model(model: str) -> str:
    """What the catalogue calls the model when it asks the provider."""
    catalogue = tomllib.loads((PROJECT / "perf" / "catalogue.toml").read_text())
    name: str = catalogue["models"][model]["routes"][0]["model"]
    return name


def _completions(url: str, path: str, model: str, query: str) -> Target:
    messages = [{"role": "user", "content": query}]
    body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    return _target(url, path, body, token='"object":"chat.completion.chunk"', ending="[DONE]")


def _target(url: str, path: str, body: object, *, token: str, ending: str) -> Target:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return Target(host=parts.hostname, port=parts.port, path=path, body=json.dumps(body), token=token, ending=ending)
