"""How long the laws are put to the test: `HYPOTHESIS_PROFILE=long` takes minutes, the default seconds."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.yjs import Yjs

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("default", max_examples=150, **_COMMON)  # type: ignore[arg-type]
settings.register_profile("long", max_examples=2000, **_COMMON)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def yjs() -> Iterator[Yjs]:
    """Real Yjs, for this test process."""
    with Yjs() as oracle:
        yield oracle
