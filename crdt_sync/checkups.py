"""What is good, doubtful or bad about how a server is set up, and what to do about it. Pure: others find out the facts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from persistence import Facts, Schema

from .bus import ServerFacts
from .limits import Capacity
from .settings import PREFIX, Settings

# Between two clocks, the time that it takes to ask included.
SKEW_DOUBTFUL_S: Final = 1.0
# Tokens are taken with less leeway than this, and revocations are compared by time.
SKEW_BAD_S: Final = 10.0
# Each confirmation waits for a commit.
COMMIT_DOUBTFUL_S: Final = 0.1
# Each update that goes to another node makes one such way.
BUS_DOUBTFUL_S: Final = 0.02
FREE_DOUBTFUL_BYTES: Final = 1 << 30
FREE_BAD_BYTES: Final = 64 << 20
REDIS_VERSION_MIN: Final = 7
# SQLite's locks can't be trusted there.
NETWORK_FILESYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})


class Verdict(StrEnum):
    """How good something is."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a checkup."""

    verdict: Verdict
    about: str
    """The part that it is about, in a word."""
    found: str
    advice: str = ""
    """What to do; empty for what is good."""


def good(about: str, found: str) -> Finding:
    """Nothing is to be done."""
    return Finding(Verdict.GOOD, about, found)


def doubtful(about: str, found: str, advice: str) -> Finding:
    """It may be what is wanted."""
    return Finding(Verdict.DOUBTFUL, about, found, advice)


def bad(about: str, found: str, advice: str) -> Finding:
    """It doesn't work, or will lose something."""
    return Finding(Verdict.BAD, about, found, advice)


def judge_settings(settings: Settings, *, cores: int, shared: bool) -> Iterable[Finding]:
    """Judge what is configured, by itself.

    Args:
        settings: Valid ones.
        cores: How many this machine has.
        shared: Whether several servers may use the store.
    """
    about = "settings"
    yield good(about, f"read from {PREFIX}*, and valid")
    keys = [name for name in ("jwt_secret", "jwt_public_key", "jwt_jwks") if getattr(settings, name) is not None]
    if keys:
        yield good(about, f"tokens are asked for ({', '.join(PREFIX + name.upper() for name in keys)})")
    elif settings.insecure_open:
        yield doubtful(
            about,
            "everybody who reaches the server may read and write every room",
            f"set {PREFIX}JWT_SECRET, and unset {PREFIX}INSECURE_OPEN, unless that is what you want",
        )
    else:
        yield good(about, "no keys, so the server is for this machine alone")
    if settings.database_url.startswith("memory:"):
        yield doubtful(about, "documents are kept in memory, and forgotten", f"set {PREFIX}DATABASE_URL")
    if settings.redis_url is not None and not shared:
        yield bad(
            about,
            "Redis connects several nodes, but each would have documents of its own",
            f"set {PREFIX}DATABASE_URL to a postgresql:// URL, or unset {PREFIX}REDIS_URL",
        )
    if settings.workers > 1 and settings.redis_url is None:
        yield bad(about, f"{settings.workers} workers don't hear of each other's edits", f"set {PREFIX}REDIS_URL")
    if settings.workers > cores:
        yield doubtful(
            about, f"{settings.workers} workers on {cores} cores", f"{PREFIX}WORKERS={cores} would do as much with less"
        )
    if settings.log_level == "DEBUG":
        yield doubtful(about, "the log tells every detail", f"unset {PREFIX}LOG_LEVEL when you have seen enough")


def judge_clock(about: str, skew_s: float) -> Finding:
    """Judge by how much another clock is ahead of this machine's."""
    way = "ahead of" if skew_s > 0 else "behind"
    found = f"its clock is {abs(skew_s):.1f} s {way} this machine's"
    advice = "have both machines keep time by NTP (chronyc tracking, timedatectl): tokens and versions go by the clock"
    if abs(skew_s) >= SKEW_BAD_S:
        return bad(about, found, advice)
    if abs(skew_s) >= SKEW_DOUBTFUL_S:
        return doubtful(about, found, advice)
    return good(about, "its clock agrees with this machine's")


def judge_schema(schema: Schema, *, migrates: bool) -> Finding:
    """Judge the tables."""
    about = "store"
    if schema.found == schema.known:
        return good(about, f"its tables have version {schema.found}, as this release needs")
    if schema.found > schema.known:
        return bad(
            about,
            f"its tables have version {schema.found}, made by a newer release; this one knows {schema.known}",
            "run the newer release",
        )
    what = "it has no tables yet" if schema.found == 0 else f"its tables have the old version {schema.found}"
    if migrates:
        return doubtful(about, what, "a starting server makes them; or run crdt-sync migrate")
    return bad(about, what, f"run crdt-sync migrate, since {PREFIX}DATABASE_MIGRATE is off")


def judge_store(facts: Facts, settings: Settings, *, shared: bool) -> Iterable[Finding]:
    """Judge how a database is set up."""
    return _judge_postgres(facts, settings) if shared else _judge_sqlite(facts)


def _judge_postgres(facts: Facts, settings: Settings) -> Iterable[Finding]:
    about, given = "store", facts.settings
    yield good(about, f"PostgreSQL {facts.version}" + (", through a pooler" if given["pooled"] == "on" else ""))
    for name in ("fsync", "full_page_writes"):
        if given[name] == "off":
            yield bad(about, f"{name} is off: a crash of its machine can lose everything", f"set {name} = on")
    if given["standby"] == "on":
        yield bad(about, "it is a standby, which takes no writes", f"name the primary in {PREFIX}DATABASE_URL")
    wanted = settings.database_connections_max * settings.workers
    left = int(given["max_connections"]) - int(given["connections"])
    connections = f"{given['connections']} of {given['max_connections']} connections are taken"
    if wanted > left:
        yield doubtful(
            about,
            f"{connections}, and a server here may open {wanted}",
            f"raise max_connections, lower {PREFIX}DATABASE_CONNECTIONS_MAX, or use a pooler (docs/how-to/use-postgresql.md); "
            "if this counts the server's own, it is fine",
        )
    else:
        yield good(about, f"{connections}; a server here opens {wanted} at most")


def _judge_sqlite(facts: Facts) -> Iterable[Finding]:
    about, given = "store", facts.settings
    if not given:
        return
    yield good(about, f"SQLite {facts.version}")
    kind = given["filesystem"]
    if kind in NETWORK_FILESYSTEMS:
        yield bad(
            about,
            f"its file is on a network file system ({kind}), where locks and syncs may not hold",
            "put it on a local disk, or use PostgreSQL",
        )
    elif kind == "overlay":
        yield doubtful(
            about,
            "its file is in a container's own layer, and goes when that goes",
            "put it on a volume",
        )
    elif kind == "tmpfs":
        yield doubtful(about, "its file is in memory (tmpfs), and goes with the machine", "put it on a disk")
    free = int(given["free_bytes"])
    found = f"{free / (1 << 30):.1f} GiB are free where it is"
    if free < FREE_BAD_BYTES:
        yield bad(about, found, "make room: soon nothing can be stored")
    elif free < FREE_DOUBTFUL_BYTES:
        yield doubtful(about, found, "make room before it is full")
    else:
        yield good(about, found)


def judge_commit(commit_s: float) -> Finding:
    """Judge how long a commit took."""
    found = f"an update was stored, read and deleted again; the commit took {commit_s * 1000:.1f} ms"
    if commit_s >= COMMIT_DOUBTFUL_S:
        return doubtful(
            "store",
            found,
            "clients wait that long to hear that an edit is saved: look at the disk, or at the way to it",
        )
    return good("store", found)


def judge_redis(facts: ServerFacts) -> Iterable[Finding]:
    """Judge one Redis server."""
    about, info = "redis", facts.info
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', '?')}"
    version = info.get("redis_version", "0")
    found = f"{name} at {facts.address} answers in {facts.took_s * 1000:.1f} ms"
    if not version.partition(".")[0].isdecimal() or int(version.partition(".")[0]) < REDIS_VERSION_MIN:
        yield bad(about, found, f"version {REDIS_VERSION_MIN} is the oldest that nodes can meet in")
    elif facts.took_s >= BUS_DOUBTFUL_S:
        yield doubtful(about, found, "edits wait that long on their way to other nodes: have it nearer")
    else:
        yield good(about, found)
    if info.get("role", "master") != "master":
        yield bad(
            about, f"{facts.address} is a replica, which takes no writes", f"name the master in {PREFIX}REDIS_URL"
        )
    yield _judge_eviction(facts)
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        yield bad(
            about,
            f"{facts.address} fails to write to its disk, and may refuse writes because of that",
            "make room there, or turn its persistence off: what nodes keep in Redis doesn't need it",
        )


def _judge_eviction(facts: ServerFacts) -> Finding:
    about, settings = "redis", facts.settings
    policy = settings.get("maxmemory-policy") or facts.info.get("maxmemory_policy")
    if policy is None:
        return doubtful(about, f"{facts.address} doesn't tell its eviction policy", "see that it is noeviction")
    if policy == "noeviction" or settings.get("maxmemory", facts.info.get("maxmemory")) == "0":
        return good(about, f"{facts.address} evicts nothing")
    return doubtful(
        about,
        f"{facts.address} evicts keys when its memory is full ({policy})",
        "set maxmemory-policy noeviction: what nodes keep there is short-lived and bounded, and tells them what a node that "
        "died hadn't stored",
    )


def judge_limits(
    settings: Settings, capacity: Capacity, *, system: Mapping[str, int], backlog: int
) -> Iterable[Finding]:
    """Judge what the operating system allows.

    Args:
        settings: What is wanted.
        capacity: How many clients the limit of open files allows.
        system: `files` (the limit), `somaxconn`; what can't be found out is missing.
        backlog: How many connections wait to be accepted at most, if the system allows it.
    """
    about = "limits"
    files = f"ulimit -n is {system['files']:,}" if "files" in system else "there is no limit of open files"
    if capacity.connections < settings.connections_max:
        yield doubtful(
            about,
            f"{files}, which is enough for {max(0, capacity.connections):,} clients of {settings.connections_max:,} (CONNECTIONS_MAX)",
            f"raise it (LimitNOFILE= in systemd, ulimits in compose), or lower {PREFIX}CONNECTIONS_MAX",
        )
    else:
        yield good(about, f"{files}, enough for {settings.connections_max:,} clients")
    somaxconn = system.get("somaxconn")
    if somaxconn is not None and somaxconn < backlog:
        yield doubtful(
            about,
            f"the system lets {somaxconn:,} connections wait to be accepted",
            f"sysctl net.core.somaxconn={backlog}: after a restart all clients come at once",
        )
    elif somaxconn is not None:
        yield good(about, f"{min(somaxconn, backlog):,} connections may wait to be accepted")


def skew_s(theirs: datetime, asked_at: datetime, answered_at: datetime) -> float:
    """By how much a clock is ahead of ours, which was asked between two moments: 0 within the time that it took."""
    if theirs < asked_at:
        return (theirs - asked_at).total_seconds()
    return max(0.0, (theirs - answered_at).total_seconds())
