"""What every refusal has in common."""

import json

from tests.app.asking import CHAT

SECRET = "the prompt that nobody else may read"
JSON = {"content-type": "application/json"}


async def refused(client, path, body, headers=None):
    """What the service answers to `body` (bytes, or a value to be sent as JSON): status, response, error."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.send("POST", path, data=data, headers=JSON | (headers or {}))
    check_refusal(path, response)
    return response


def check_refusal(path, response):
    """The form of every refusal: its media type, the thread id, no word from inside."""
    is_openai = path.startswith((CHAT, "/v1/models"))
    media_type = "application/json" if is_openai else "application/problem+json"
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert response.headers["x-thread-id"]
    assert response.headers["cache-control"] == "no-store"
    for word in (b"Traceback", b".py", b"litestar", b"msgspec", SECRET.encode()):
        assert word not in response.raw


def told(path, response):
    """Code, field and reason, whichever form they come in."""
    body = json.loads(response.raw)
    if path == CHAT:
        assert set(body["error"]) >= {"message", "type", "param", "code"}
        return body["error"]["code"], body["error"]["param"], body["error"]["message"]
    assert (body["status"], body["thread_id"]) == (response.status, response.headers["x-thread-id"])
    assert body["type"] == f"urn:weir:problem:{body['code']}"
    errors = body.get("errors") or [{"field": None, "reason": body["detail"]}]
    return body["code"], errors[0]["field"], errors[0]["reason"]
