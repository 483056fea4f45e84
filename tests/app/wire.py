"""Plain sockets, for what no proper client would send, or would not show."""

import asyncio
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


@asynccontextmanager
async def connection(url):
    """A reader and a writer; the connection ends with the context, without ceremony."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(method, path, *headers):
    """The bytes of a request up to its body."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: weir", *headers, "", "")).encode()


async def response(reader):
    """Status, headers and body of one response that says how long it is."""
    async with asyncio.timeout(10):
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(status_line.split()[1]), headers, body


async def exchange(url, data):
    """The response to these bytes."""
    async with connection(url) as (reader, writer):
        writer.write(data)
        return await response(reader)
