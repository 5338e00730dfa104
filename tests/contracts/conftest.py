"""The stores under contract. A new one is one more entry in `STORES`."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from persistence import Store, open_store

Place = Callable[[], Store]


def memory_place(request: pytest.FixtureRequest) -> Place:
    store = open_store("memory://")
    return lambda: store


def sqlite_place(request: pytest.FixtureRequest) -> Place:
    path: Path = request.getfixturevalue("tmp_path") / "store.db"
    return lambda: open_store(f"sqlite:///{path}")


def postgres_place(request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("postgres_url")
    return lambda: open_store(url)


def pgbouncer_place(request: pytest.FixtureRequest) -> Place:
    url = request.getfixturevalue("pgbouncer_url")
    return lambda: open_store(url)


STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "memory": memory_place,
    "sqlite": sqlite_place,
    "postgres": postgres_place,
    "pgbouncer": pgbouncer_place,
}


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    """Makes a store, not open yet, each time on the same content."""
    return STORES[request.param](request)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place()
    await store.open()
    yield store
    await store.close()
