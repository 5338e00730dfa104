"""What is called good, doubtful and bad."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crdt_sync.bus import ServerFacts
from crdt_sync.checkups import (
    Finding,
    judge_clock,
    judge_commit,
    judge_limits,
    judge_redis,
    judge_schema,
    judge_settings,
    judge_store,
    skew_s,
)
from crdt_sync.limits import Capacity
from crdt_sync.settings import Settings
from persistence import Facts, Schema

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
POSTGRES = {
    "connections": "10",
    "standby": "off",
    "max_connections": "100",
    "synchronous_commit": "on",
    "fsync": "on",
    "full_page_writes": "on",
    "pooled": "off",
}
SQLITE = {"journal_mode": "wal", "synchronous": "2", "free_bytes": str(50 << 30), "filesystem": "ext4"}
REDIS = ServerFacts(
    address="redis:6379",
    took_s=0.0004,
    now=NOW,
    info={"redis_version": "7.2.4", "role": "master", "rdb_last_bgsave_status": "ok", "aof_last_write_status": "ok"},
    settings={"maxmemory": "1000000", "maxmemory-policy": "noeviction"},
)


def told(findings: list[Finding]) -> list[str]:
    """What isn't good, and that it says what to do."""
    assert all((one.advice == "") == (one.verdict == "good") for one in findings)
    return [f"{one.verdict}: {one.found}" for one in findings if one.verdict != "good"]


@pytest.mark.parametrize(
    ("changes", "shared", "expected"),
    [
        pytest.param({}, False, [], id="the defaults"),
        pytest.param({"jwt_secret": "x" * 32}, False, [], id="keys"),
        pytest.param({"insecure_open": True}, False, ["doubtful: everybody who reaches"], id="open"),
        pytest.param({"database_url": "memory://"}, False, ["doubtful: documents are kept in memory"], id="memory"),
        pytest.param({"redis_url": "redis://r"}, False, ["bad: Redis connects several nodes"], id="redis and sqlite"),
        pytest.param({"redis_url": "redis://r"}, True, [], id="redis and postgresql"),
        pytest.param({"workers": 2}, True, ["bad: 2 workers don't hear"], id="workers without redis"),
        pytest.param({"workers": 9, "redis_url": "redis://r"}, True, ["doubtful: 9 workers on 4"], id="many workers"),
        pytest.param({"log_level": "DEBUG"}, False, ["doubtful: the log"], id="a chatty log"),
    ],
)
def test_settings_that_contradict_each_other_are_found(
    changes: dict[str, object], shared: bool, expected: list[str]
) -> None:
    found = told(list(judge_settings(Settings(**changes), cores=4, shared=shared)))  # type: ignore[arg-type]
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("skew", "verdict"),
    [(0.0, "good"), (0.9, "good"), (-1.0, "doubtful"), (9.0, "doubtful"), (10.0, "bad"), (-3600.0, "bad")],
)
def test_clocks_that_differ_are_found(skew: float, verdict: str) -> None:
    found = judge_clock("store", skew)
    assert found.verdict == verdict
    assert verdict == "good" or ("ahead of" in found.found) == (skew > 0)


def test_a_clock_that_was_asked_while_time_went_by_is_not_wrong() -> None:
    later = NOW + timedelta(seconds=3)
    assert skew_s(NOW + timedelta(seconds=1), NOW, later) == 0
    assert skew_s(NOW + timedelta(seconds=5), NOW, later) == 2
    assert skew_s(NOW - timedelta(seconds=5), NOW, later) == -5


@pytest.mark.parametrize(
    ("schema", "migrates", "verdict"),
    [
        (Schema(3, 3), False, "good"),
        (Schema(0, 3), True, "doubtful"),
        (Schema(2, 3), True, "doubtful"),
        (Schema(2, 3), False, "bad"),
        (Schema(4, 3), True, "bad"),
    ],
)
def test_tables_of_another_version_are_found(schema: Schema, migrates: bool, verdict: str) -> None:
    found = judge_schema(schema, migrates=migrates)
    assert found.verdict == verdict
    assert (found.advice == "") == (verdict == "good")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"fsync": "off"}, ["bad: fsync is off: a crash of its machine can lose everything"]),
        ({"full_page_writes": "off"}, ["bad: full_page_writes is off: a crash of its machine can lose everything"]),
        ({"standby": "on"}, ["bad: it is a standby, which takes no writes"]),
        ({"connections": "93"}, ["doubtful: 93 of 100 connections are taken, and a server here may open 8"]),
    ],
)
def test_a_postgresql_that_loses_or_refuses_is_found(changes: dict[str, str], expected: list[str]) -> None:
    facts = Facts("15.18", NOW, POSTGRES | changes)
    assert told(list(judge_store(facts, Settings(), shared=True))) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        (
            {"filesystem": "nfs4"},
            ["bad: its file is on a network file system (nfs4), where locks and syncs may not hold"],
        ),
        ({"filesystem": "overlay"}, ["doubtful: its file is in a container's own layer, and goes when that goes"]),
        ({"filesystem": "tmpfs"}, ["doubtful: its file is in memory (tmpfs), and goes with the machine"]),
        ({"free_bytes": str(500 << 20)}, ["doubtful: 0.5 GiB are free where it is"]),
        ({"free_bytes": "1000"}, ["bad: 0.0 GiB are free where it is"]),
    ],
)
def test_a_sqlite_file_in_a_bad_place_is_found(changes: dict[str, str], expected: list[str]) -> None:
    facts = Facts("3.40.1", NOW, SQLITE | changes)
    assert told(list(judge_store(facts, Settings(), shared=False))) == expected


def test_a_slow_commit_is_found() -> None:
    assert judge_commit(0.004).verdict == "good"
    assert judge_commit(0.3).verdict == "doubtful"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param(REDIS, [], id="as it has to be"),
        pytest.param(
            replace(REDIS, info=REDIS.info | {"redis_version": "6.2.1"}),
            ["bad: Redis 6.2.1 at redis:6379 answers in 0.4 ms"],
            id="old",
        ),
        pytest.param(
            replace(REDIS, took_s=0.05), ["doubtful: Redis 7.2.4 at redis:6379 answers in 50.0 ms"], id="far away"
        ),
        pytest.param(
            replace(REDIS, info=REDIS.info | {"role": "slave"}),
            ["bad: redis:6379 is a replica, which takes no writes"],
            id="a replica",
        ),
        pytest.param(
            replace(REDIS, settings=dict(REDIS.settings, **{"maxmemory-policy": "allkeys-lru"})),
            ["doubtful: redis:6379 evicts keys when its memory is full (allkeys-lru)"],
            id="it evicts",
        ),
        pytest.param(
            replace(REDIS, settings={"maxmemory": "0", "maxmemory-policy": "allkeys-lru"}), [], id="it never would"
        ),
        pytest.param(
            replace(REDIS, settings={}),
            ["doubtful: redis:6379 doesn't tell its eviction policy"],
            id="it keeps that to itself",
        ),
        pytest.param(
            replace(REDIS, info=REDIS.info | {"rdb_last_bgsave_status": "err"}),
            ["bad: redis:6379 fails to write to its disk, and may refuse writes because of that"],
            id="its disk is full",
        ),
    ],
)
def test_a_redis_that_will_not_do_is_found(changed: ServerFacts, expected: list[str]) -> None:
    assert told(list(judge_redis(changed))) == expected


def test_limits_that_are_too_low_are_found() -> None:
    settings = Settings()
    enough = {"files": 100_000, "somaxconn": 4096}
    little = {"files": 1024, "somaxconn": 128}

    assert told(list(judge_limits(settings, Capacity.within(settings, 100_000), system=enough, backlog=4096))) == []
    found = told(list(judge_limits(settings, Capacity.within(settings, 1024), system=little, backlog=4096)))

    assert [one.partition(",")[0] for one in found] == [
        "doubtful: ulimit -n is 1",
        "doubtful: the system lets 128 connections wait to be accepted",
    ]
