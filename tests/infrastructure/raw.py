"""A client that shows what really came over the wire, and how the connection ended."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

MESSAGES = [{"role": "user", "content": "What is a weir?"}]
PATHS = {
    "openai": "/chat/completions",
    "deepseek": "/chat/completions",
    "gemini": "/v1beta/models/{model}:{verb}",
}


@asynccontextmanager
async def connection(url):
    """A plain connection to the server at `url`, closed at the end without ceremony."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(simulator, provider, model, *, stream=True, **body):
    """The bytes of a request for a completion, in the provider's protocol."""
    url = urlsplit(simulator.urls[provider])
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    path = url.path + PATHS[provider].format(model=model, verb=verb)
    if provider == "gemini":
        asked = {"contents": [{"role": "user", "parts": [{"text": MESSAGES[0]["content"]}]}], **body}
    else:
        asked = {"model": model, "messages": MESSAGES, "stream": stream, **body}
    return post(path, url.netloc, json.dumps(asked).encode())


def post(path, host, body, key="k"):
    """The bytes of a POST that carries the key in both ways there are."""
    lines = (
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        f"authorization: Bearer {key}",
        f"x-goog-api-key: {key}",
        f"content-length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def asked(simulator, provider, model, **options):
    """A connection on which a completion was asked for."""
    async with connection(simulator.urls[provider]) as (reader, writer):
        writer.write(request(simulator, provider, model, **options))
        yield reader


async def everything(reader):
    """All that came until the connection ended, and the error that ended it, if it was one."""
    received = bytearray()
    try:
        async with asyncio.timeout(5):
            while data := await reader.read(65536):
                received += data
                if received.endswith(b"\r\n0\r\n\r\n"):
                    break
    except ConnectionResetError as reset:
        return bytes(received), reset
    return bytes(received), None


async def until_words(provider, reader, count):
    """The first `count` texts of a stream and whatever came with them."""
    received = bytearray()
    async with asyncio.timeout(5):
        while len(words(provider, data_lines(received))) < count:
            received += await reader.read(65536)
    return words(provider, data_lines(received))


def is_whole(received):
    """Whether a chunked body came to its regular end."""
    return received.endswith(b"\r\n0\r\n\r\n")


def data_lines(received):
    """The payloads of all events, undecoded."""
    lines = received.replace(b"\r\n", b"\n").split(b"\n")
    return [line.removeprefix(b"data: ").decode() for line in lines if line.startswith(b"data: ")]


def words(provider, payloads):
    """The texts of the tokens in `payloads`, those that are not JSON left out."""
    return [text for text in (_text(provider, payload) for payload in payloads) if text]


def _text(provider, payload):
    try:
        event = json.loads(payload)
    except ValueError:
        return None
    if provider == "gemini":
        candidates = event.get("candidates") or [{}]
        return candidates[0].get("content", {}).get("parts", [{}])[0].get("text")
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content")
