"""Remembers what was accepted: per-document logs of bytes, snapshots that stand for a log's beginning, and their past.

Knows nothing of sockets or CRDTs: whoever needs bytes merged does it before.
"""

from persistence.store import (
    DocumentDeleted,
    DocumentExists,
    DocumentHead,
    DocumentStats,
    Entry,
    Export,
    HistoryTrimmed,
    Quarantined,
    Revocation,
    RevocationKind,
    Row,
    Schema,
    Snapshot,
    Store,
    StoreCorrupt,
    Stored,
    StoreError,
    StoreInUse,
    StoreUnavailable,
    StoreUnusable,
    VersionContent,
    open_store,
)
from persistence.versions import Chunk, Span, Version, VersionKind

__all__ = [
    "Chunk",
    "DocumentDeleted",
    "DocumentExists",
    "DocumentHead",
    "DocumentStats",
    "Entry",
    "Export",
    "HistoryTrimmed",
    "Quarantined",
    "Revocation",
    "RevocationKind",
    "Row",
    "Schema",
    "Snapshot",
    "Span",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreInUse",
    "StoreUnavailable",
    "StoreUnusable",
    "Stored",
    "Version",
    "VersionContent",
    "VersionKind",
    "open_store",
]
