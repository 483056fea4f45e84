import pytest

from tests.loops import FAKE_TIME


@pytest.fixture
def anyio_backend():
    """The domain's time is fake."""
    return FAKE_TIME
