"""HTTP/2, as a load balancer speaks it to us: without TLS, by prior knowledge."""

import httpx2
import pytest

from tests.app.asking import STREAM, body_for
from tests.serving import serving
from tests.sse_parser import events_of

pytestmark = pytest.mark.anyio
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


async def test_no_hop_by_hop_header_is_sent(service, simulator):
    """RFC 9113, section 8.2.2: they would make the response malformed."""
    pytest.importorskip("h2")
    async with httpx2.AsyncClient(http1=False, http2=True) as client:
        response = await client.post(service.url + STREAM, json=body_for(STREAM))

    assert response.http_version == "HTTP/2"
    assert not HOP_BY_HOP & set(response.headers)
    assert events_of(response.content)[-1].type == "complete"


async def test_a_refusal_asks_for_no_closing(simulator):
    """Where HTTP/1.1 closes the connection, the other streams of one in HTTP/2 go on."""
    pytest.importorskip("h2")
    with serving(simulator, WEIR_MAX_REQUEST_BYTES="10") as service:
        async with httpx2.AsyncClient(http1=False, http2=True) as client:
            response = await client.post(service.url + STREAM, json=body_for(STREAM))

    assert (response.http_version, response.status_code) == ("HTTP/2", 413)
    assert not HOP_BY_HOP & set(response.headers)
