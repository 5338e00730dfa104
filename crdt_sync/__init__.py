"""A y-websocket sync server for Yjs documents that keeps every confirmed edit."""

from .gateway.app import create_app
from .settings import InvalidSettings, Settings

__all__ = ["InvalidSettings", "Settings", "create_app"]
