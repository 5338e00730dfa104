"""Remembers what was accepted: per-document logs of bytes, and snapshots that stand for a log's beginning.

Knows nothing of sockets or CRDTs: whoever needs bytes merged does it before.
"""

from persistence.store import (
    DocumentDeleted,
    DocumentExists,
    DocumentHead,
    DocumentStats,
    Entry,
    Export,
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
    StoreUnavailable,
    StoreUnusable,
    open_store,
)

__all__ = [
    "DocumentDeleted",
    "DocumentExists",
    "DocumentHead",
    "DocumentStats",
    "Entry",
    "Export",
    "Quarantined",
    "Revocation",
    "RevocationKind",
    "Row",
    "Schema",
    "Snapshot",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "StoreUnusable",
    "Stored",
    "open_store",
]
