"""The stores under contract. A new one is one more entry in `STORES`."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from persistence import Store, open_store

Place = Callable[[], Store]


def memory_place(tmp_path: Path) -> Place:
    store = open_store("memory://")
    return lambda: store


def sqlite_place(tmp_path: Path) -> Place:
    return lambda: open_store(f"sqlite:///{tmp_path / 'store.db'}")


STORES = {"memory": memory_place, "sqlite": sqlite_place}


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Makes a store, not open yet, each time on the same content."""
    return STORES[request.param](tmp_path)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place()
    await store.open()
    yield store
    await store.close()
