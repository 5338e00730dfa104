"""`python -m crdt_sync` is `crdt-sync`."""

from .cli import main

main()
