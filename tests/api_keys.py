"""Keys for tests."""

from domain.keys import ApiKey, digest_of, new_text


def api_key(**changes):
    """A key and its text."""
    text, key_id = new_text()
    plain = {"key_id": key_id, "digest": digest_of(text), "user": "ann", "tier": "standard", "created_at_s": 1_000.0}
    return ApiKey(**plain | changes), text
