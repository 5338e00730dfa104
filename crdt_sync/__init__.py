"""A y-websocket sync server for Yjs documents that keeps every confirmed edit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gateway.app import create_app
    from .settings import InvalidSettings, Settings

__all__ = ["InvalidSettings", "Settings", "create_app"]

_MODULES = {"InvalidSettings": ".settings", "Settings": ".settings", "create_app": ".gateway.app"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: tools need nothing of what serves, and every process begins here."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
