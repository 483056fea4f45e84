"""Real Redis servers that are reached with TLS. Not every build of theirs has it: a proxy ends it in front of each."""

import datetime as dt
import ipaddress
import subprocess
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from perf.redis_server import free_port, redis_executable
from tests.proxies import Proxy
from tests.redis_servers import RedisCluster, RedisServer, ask

_LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def certificate(path: Path, host: x509.GeneralName = _LOOPBACK) -> Path:
    """Write a certificate for `host`, signed by itself, and its key; return `path`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .sign(key, hashes.SHA256())
    )
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(written + signed.public_bytes(serialization.Encoding.PEM))
    return path


class SecureRedis:
    """A server, at `url` if its certificate is trusted."""

    def __init__(self, pem: Path) -> None:
        self._server = RedisServer()
        self._proxy = Proxy(self._server.port, pem=pem)
        self.url = f"rediss://127.0.0.1:{self._proxy.port}"

    def close(self) -> None:
        """It is gone."""
        self._proxy.close()
        self._server.close()


class SecureCluster(RedisCluster):
    """Three servers that tell each other's secure addresses."""

    def __init__(self, pem: Path) -> None:
        self._pem = pem
        self._proxies: list[Proxy] = []
        super().__init__()
        self.url = "rediss+cluster://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._proxies)

    def _node(self, *options: str, port: int | None = None) -> RedisServer:
        port = port or free_port()
        proxy = Proxy(port, pem=self._pem)
        self._proxies.append(proxy)
        announced = ("--cluster-announce-port", str(proxy.port), "--cluster-announce-bus-port", str(port + 10_000))
        return super()._node(*options, *announced, port=port)

    def close(self) -> None:
        """All are gone."""
        for proxy in self._proxies:
            proxy.close()
        super().close()


class SecureSentinel:
    """A server whose secure address a sentinel tells those who know the sentinel's own password."""

    password = "correct-horse"

    def __init__(self, pem: Path) -> None:
        self._server = SecureRedis(pem)
        self._folder = tempfile.TemporaryDirectory()
        port, master_port = free_port(), self._server.url.rpartition(":")[2]
        config = Path(self._folder.name) / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder.name}\nrequirepass {self.password}\n"
            f"sentinel monitor weir 127.0.0.1 {master_port} 1\n"
            "sentinel down-after-milliseconds weir 600000\n"  # it speaks no TLS itself, and must not think it gone
        )
        self._sentinel = subprocess.Popen([redis_executable(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        while not ask(port, "PING").startswith(b"-NOAUTH"):
            pass
        self._proxy = Proxy(port, pem=pem)
        self.url = f"rediss+sentinel://127.0.0.1:{self._proxy.port}/weir"

    def close(self) -> None:
        """Both are gone."""
        self._proxy.close()
        self._sentinel.kill()
        self._sentinel.wait(timeout=10)
        self._folder.cleanup()
        self._server.close()
