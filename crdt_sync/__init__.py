"""A y-websocket sync server for Yjs documents that keeps every confirmed edit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import NotRunning, NotYetStored, SyncError
    from .gateway.app import SyncApp, create_app
    from .gateway.live_rooms import LiveRooms
    from .hooks import StoredChange
    from .settings import InvalidSettings, Settings
    from .ws import websocket_protocol

__all__ = [
    "InvalidSettings",
    "LiveRooms",
    "NotRunning",
    "NotYetStored",
    "Settings",
    "StoredChange",
    "SyncApp",
    "SyncError",
    "create_app",
    "websocket_protocol",
]

_MODULES = {
    "InvalidSettings": ".settings",
    "LiveRooms": ".gateway.live_rooms",
    "NotRunning": ".errors",
    "NotYetStored": ".errors",
    "Settings": ".settings",
    "StoredChange": ".hooks",
    "SyncApp": ".gateway.app",
    "SyncError": ".errors",
    "create_app": ".gateway.app",
    "websocket_protocol": ".ws",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for: tools need nothing of what serves, and every process begins here."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
