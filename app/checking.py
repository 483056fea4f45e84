"""`weir check`: whether Redis can be used, API keys can be read, and each provider takes our key."""

import asyncio
from collections.abc import Callable

from app.container import connect
from config.catalogue import Catalogue
from config.settings import Settings
from domain.errors import ProviderError
from domain.ports import Provider
from infrastructure.memory.key_file import KeyFileError, read_keys
from infrastructure.redis.checking import RedisUnfit, RedisUnreachable, check_redis


async def check_store(settings: Settings, tell: Callable[[str], None]) -> bool:
    """Redis has been tried, if there is to be one, and `tell` told what came of it; whether it can be used."""
    if not settings.redis_url:
        return True
    try:
        tell(f"  ok    {await check_redis(settings.redis_url)}")
    except (RedisUnfit, RedisUnreachable) as failure:
        tell(f"  fails WEIR_REDIS_URL: {failure}")
        return False
    return True


def check_keys(settings: Settings, tell: Callable[[str], None]) -> bool:
    """The file of API keys has been read, if there is to be one, and `tell` told; whether it could be."""
    path = settings.access.api_keys_file
    if settings.redis_url or path is None:
        return True
    try:
        tell(f"  ok    WEIR_API_KEYS_FILE: {len(read_keys(path))} keys")
    except KeyFileError as failure:
        tell(f"  fails WEIR_API_KEYS_FILE: {failure}")
        return False
    return True


async def check_providers(settings: Settings, catalogue: Catalogue, tell: Callable[[str], None]) -> bool:
    """Each provider has been asked for its models, and `tell` told what came of it; whether one can be used."""
    providers = connect(catalogue.providers, settings.deadlines.connect_s)
    try:
        verdicts = [await _verdict(provider, settings.deadlines.first_token_s) for provider in providers.values()]
    finally:
        for provider in providers.values():
            await provider.close()
    for name, verdict in zip(providers, verdicts, strict=True):
        where = catalogue.providers[name].base_url
        tell(f"  fails {name}: {verdict} ({where})" if verdict else f"  ok    {name}")
    return not all(verdicts)


async def _verdict(provider: Provider, limit_s: float) -> str | None:
    """What is wrong with the provider; None: nothing."""
    try:
        async with asyncio.timeout(limit_s):
            await provider.check()
    except ProviderError as failure:
        return failure.reason
    except TimeoutError:
        return f"did not answer within {limit_s:g} s"
    return None
