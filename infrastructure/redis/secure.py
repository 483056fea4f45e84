"""Connections with TLS, which know by heart what is trusted: to read that anew for each would stop everything else for
up to a twentieth of a second.
"""

import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from redis.asyncio.connection import RedisSSLContext, SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection


@lru_cache(maxsize=4)
def _context(
    certfile: str | None,
    keyfile: str | None,
    ca_certs: str | None,
    cert_reqs: ssl.VerifyMode,
    check_hostname: bool,  # noqa: FBT001  # the key of a cache
    _: tuple[int, ...],
) -> ssl.SSLContext:
    """What is trusted, as the files say; the last argument changes when they do."""
    return RedisSSLContext(
        certfile=certfile, keyfile=keyfile, ca_certs=ca_certs, cert_reqs=cert_reqs, check_hostname=check_hostname
    ).get()


def _remembered(asked: RedisSSLContext) -> ssl.SSLContext:
    files = (asked.certfile, asked.keyfile, asked.ca_certs)
    changed_ns = tuple(Path(file).stat().st_mtime_ns for file in files if file)
    return _context(*files, asked.cert_reqs, asked.check_hostname, changed_ns)


class SecureConnection(SSLConnection):
    """A connection to a server, of which the address is known."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = _remembered(self.ssl_context)
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return arguments


class SecureMasterConnection(SentinelManagedSSLConnection):
    """A connection to the server that sentinels name."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = _remembered(self.ssl_context)
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return arguments
