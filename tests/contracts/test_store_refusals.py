"""What every store promises of quarantined updates and revocations. Runs against each entry of `STORES` in conftest."""

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from persistence import Entry, Quarantined, Revocation, RevocationKind, Snapshot, Store, Stored
from persistence.store import DIGEST_BYTES_MAX, NAME_BYTES_MAX, QUARANTINED_MAX, REVOCATION_GRACE

from .conftest import Place

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANN = Revocation("user", "ann", revoked_at=NOW, until=NOW + HOUR)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


async def test_load_tells_what_is_quarantined(store: Store) -> None:
    await store.append([Entry("x", [b"a", b"b"], accepted_at=NOW), Entry("y", [b"a"], accepted_at=NOW)])
    await store.checkpoint([Snapshot("x", seq=1, state=b"s", state_vector=b"v")])

    await store.quarantine("x", digest(1), at=NOW)
    await store.quarantine("x", b",'\0", at=NOW)

    quarantined = frozenset([digest(1), b",'\0"])
    whole = await store.load("x")
    assert whole == Stored(2, Snapshot("x", seq=1, state=b"s", state_vector=b"v"), (b"b",), quarantined)
    assert await store.load("x", after=2) == Stored(2, None, (), quarantined)
    assert await store.load("y") == Stored(1, None, (b"a",))


async def test_update_is_quarantined_before_its_document_is_there(store: Store) -> None:
    await store.quarantine("x", digest(1), at=NOW)

    assert await store.load("x") == Stored(0, None, (), frozenset([digest(1)]))
    assert await store.documents() == []
    await store.append([Entry("x", [b"a"], accepted_at=NOW)])
    assert await store.load("x") == Stored(1, None, (b"a",), frozenset([digest(1)]))


async def test_quarantine_is_listed_with_the_last_time(store: Store) -> None:
    for document, number, at in (("y", 1, NOW), ("x", 2, NOW + HOUR), ("x", 1, NOW), ("x", 2, NOW), ("x", 1, NOW)):
        await store.quarantine(document, digest(number), at=at)
    await store.quarantine("y", digest(1), at=(NOW + HOUR).astimezone())

    assert await store.quarantined() == [
        Quarantined("x", digest(1), NOW),
        Quarantined("x", digest(2), NOW + HOUR),
        Quarantined("y", digest(1), NOW + HOUR),
    ]


async def test_only_the_newest_of_a_document_stay_quarantined(store: Store) -> None:
    await store.quarantine("y", digest(0), at=NOW - HOUR)
    for number in range(QUARANTINED_MAX + 3):
        await store.quarantine("x", digest(number), at=NOW + timedelta(seconds=number))
    await store.quarantine("x", digest(999), at=NOW - HOUR)

    quarantined = (await store.load("x")).quarantined
    assert quarantined == {digest(number) for number in range(3, QUARANTINED_MAX + 3)}
    assert (await store.load("y")).quarantined == {digest(0)}


async def test_updates_quarantined_at_once_are_all_kept_up_to_the_limit(store: Store, place: Place) -> None:
    other = place() if store.shared else store
    await other.open()

    await asyncio.gather(
        *((store, other)[number % 2].quarantine("x", digest(number), at=NOW) for number in range(QUARANTINED_MAX + 6))
    )

    assert len((await store.load("x")).quarantined) == QUARANTINED_MAX
    if other is not store:
        await other.close()


@pytest.mark.parametrize(
    ("document", "digest", "at"),
    [
        ("", b"d", NOW),
        ("a\0b", b"d", NOW),
        ("x", b"", NOW),
        ("x", b"d" * (DIGEST_BYTES_MAX + 1), NOW),
        ("x", b"d", NOW.replace(tzinfo=None)),
    ],
)
async def test_what_can_not_be_quarantined_is_refused(store: Store, document: str, digest: bytes, at: datetime) -> None:
    with pytest.raises(ValueError, match=r"name|digest|time zone"):
        await store.quarantine(document, digest, at=at)

    assert await store.quarantined() == []


async def test_revocations_are_known_until_the_tokens_have_expired(store: Store) -> None:
    room = Revocation("room", "旅行/🧳", revoked_at=NOW, until=NOW + 2 * HOUR)
    token = Revocation("token", "ann", revoked_at=NOW, until=NOW + 3 * HOUR)
    for one in (token, ANN, room):
        await store.revoke(one)

    known = [await store.revocations(now=NOW + n * HOUR) for n in range(4)]

    assert known == [[room, token, ANN], [room, token], [token], []]


async def test_of_two_revocations_the_later_times_count(store: Store) -> None:
    await store.revoke(ANN)
    await store.revoke(replace(ANN, revoked_at=NOW + HOUR, until=NOW + HOUR / 2))
    await store.revoke(replace(ANN, revoked_at=NOW - HOUR, until=NOW + 3 * HOUR))

    assert await store.revocations(now=NOW) == [replace(ANN, revoked_at=NOW + HOUR, until=NOW + 3 * HOUR)]


async def test_revocation_ends_if_it_is_taken_back(store: Store) -> None:
    await store.revoke(ANN)

    ended = [await store.unrevoke(*which) for which in (("token", "ann"), ("user", "bob"), ("user", "ann"))]

    assert ended == [False, False, True]
    assert await store.revocations(now=NOW) == []


async def test_revocation_is_still_there_after_reopening(place: Place) -> None:
    first = place()
    await first.open()
    await first.revoke(ANN)
    await first.close()
    second = place()
    await second.open()

    try:
        assert await second.revocations(now=NOW) == [ANN]
    finally:
        await second.close()


async def test_expired_revocations_are_forgotten_some_time_later(store: Store) -> None:
    bob = replace(ANN, value="bob", revoked_at=ANN.until + REVOCATION_GRACE - HOUR)
    await store.revoke(ANN)
    await store.revoke(bob)
    kept = await store.revocations(now=NOW)
    await store.revoke(replace(bob, revoked_at=ANN.until + REVOCATION_GRACE, until=NOW + 99 * HOUR))

    assert kept == [ANN, bob]
    assert [one.value for one in await store.revocations(now=NOW)] == ["bob"]


async def test_revocations_at_once_on_two_nodes_all_count(store: Store, place: Place) -> None:
    other = place() if store.shared else store
    await other.open()
    expired = [Revocation("user", f"user-{n}", revoked_at=NOW - 99 * HOUR, until=NOW - 90 * HOUR) for n in range(8)]
    for one in expired:
        await store.revoke(one)

    renewed = [replace(one, revoked_at=NOW, until=NOW + HOUR) for one in expired]
    async with asyncio.timeout(20):
        await asyncio.gather(*(each.revoke(one) for one in renewed for each in (store, other)))

    assert await store.revocations(now=NOW) == renewed
    if other is not store:
        await other.close()


@pytest.mark.parametrize(
    ("kind", "value"), [("user", ""), ("room", "a\0b"), ("token", "\ud800"), ("user", "a" * (NAME_BYTES_MAX + 1))]
)
def test_revocation_of_what_can_not_be_stored_is_refused(kind: RevocationKind, value: str) -> None:
    with pytest.raises(ValueError, match=rf"a revoked {kind}|surrogates"):
        Revocation(kind, value, revoked_at=NOW, until=NOW)


def test_revocation_needs_a_known_kind_and_time_zones() -> None:
    with pytest.raises(ValueError, match="not a 'group'"):
        Revocation("group", "x", revoked_at=NOW, until=NOW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="revoked_at needs a time zone"):
        replace(ANN, revoked_at=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="until needs a time zone"):
        replace(ANN, until=NOW.replace(tzinfo=None))


async def test_longest_values_are_kept(store: Store) -> None:
    text = "".join(chr(0x4E00 + 7919 * n % 20_000) for n in range(NAME_BYTES_MAX // 3))  # an index can't compress it
    await store.revoke(replace(ANN, value=text))
    await store.quarantine(text, os.urandom(DIGEST_BYTES_MAX), at=NOW)

    assert await store.revocations(now=NOW) == [replace(ANN, value=text)]
    assert [one.document for one in await store.quarantined()] == [text]
