"""The command that makes a token: for development, and for trying out a server's keys."""

import argparse
import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from auth import CredentialInvalid, Minted, Right, mint, minting_key

from .commands import Commands, add_command, add_json, seconds
from .settings import PREFIX, InvalidSettings, Settings

PEM_BYTES_MAX: Final = 64 << 10
_HOW: Final = f"export {PREFIX}JWT_SECRET=$(openssl rand -base64 48)"


def add_parsers(commands: Commands) -> None:
    """Add `token`."""
    command = add_command(
        commands,
        "token",
        token,
        help="make a token, for development",
        description="Make a token for a user and print it. It is signed with CRDT_SYNC_JWT_SECRET, which the server has "
        "to have too, or with a private key whose public half the server has.",
        epilog="docs/how-to/authenticate.md says what is in a token and how an application makes one.",
    )
    command.add_argument("--user", required=True, metavar="ID", help="who it is for (sub)")
    command.add_argument(
        "--room",
        dest="rooms",
        action="append",
        required=True,
        type=_room,
        metavar="NAME=RIGHT",
        help="a room, or a prefix and *, and read, write or admin, as in 'trip-*=write'; may be given several times",
    )
    command.add_argument(
        "--ttl", dest="ttl_s", type=seconds, default="1h", metavar="TIME", help="90s, 15m, 1h (the default) or 7d"
    )
    command.add_argument("--name", help="what other people see")
    command.add_argument("--color", help="in what colour they see it: #rgb, #rrggbb or #rrggbbaa")
    command.add_argument("--id", dest="token_id", metavar="JTI", help="to revoke it by (default: a random one)")
    command.add_argument("--audience", metavar="AUD", help="(default: the first of CRDT_SYNC_JWT_AUDIENCE)")
    command.add_argument("--issuer", metavar="ISS", help="(default: the first of CRDT_SYNC_JWT_ISSUER)")
    command.add_argument(
        "--private-key", type=Path, metavar="FILE", help="sign with this key in PEM: RSA, EC on P-256 or Ed25519"
    )
    command.add_argument("--key-id", metavar="KID", help="what the private key is called in the server's JWKS")
    add_json(command, "print the claims too, as JSON")


def token(
    *,
    user: str,
    rooms: Sequence[tuple[str, Right]],
    ttl_s: int,
    name: str | None,
    color: str | None,
    token_id: str | None,
    audience: str | None,
    issuer: str | None,
    private_key: Path | None,
    key_id: str | None,
    as_json: bool,
) -> int:
    """Print a token, and nothing else, so that a shell can take it.

    Raises:
        InvalidSettings: There is no usable key, or the server would not take such a token.
    """
    settings = Settings.read()
    minted = _mint(
        settings,
        user,
        rooms,
        ttl_s,
        pem=None if private_key is None else _read(private_key),
        key_id=key_id,
        optional={
            "name": name,
            "color": color,
            "jti": token_id or secrets.token_hex(8),  # so that it can be revoked alone
            "aud": audience or next(iter(settings.jwt_audience), None),
            "iss": issuer or next(iter(settings.jwt_issuer), None),
        },
    )
    print(json.dumps({"token": minted.token, "claims": minted.claims}, indent=2) if as_json else minted.token)
    return 0


def _mint(
    settings: Settings,
    user: str,
    rooms: Sequence[tuple[str, Right]],
    ttl_s: int,
    *,
    pem: str | None,
    key_id: str | None,
    optional: dict[str, str | None],
) -> Minted:
    secret = settings.jwt_secret
    if secret is None and pem is None:
        raise InvalidSettings(
            f"{PREFIX}JWT_SECRET is not set, so nothing can be signed. Make one, for the server too, "
            f"or name a key with --private-key:\n  {_HOW}"
        )
    try:
        key = minting_key(secret=None if secret is None else secret.get_secret_value(), pem=pem, kid=key_id)
    except ValueError as error:
        raise InvalidSettings(f"{f'{PREFIX}JWT_SECRET' if pem is None else '--private-key'} {error}") from error
    try:
        return mint(
            key,
            user=user,
            rooms=dict(rooms),
            lifetime_s=ttl_s,
            now=int(time.time()),
            lifetime_max_s=settings.jwt_lifetime_max_s,
            optional=optional,
        )
    except CredentialInvalid as error:
        raise InvalidSettings(f"no server would take such a token: {error}") from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(PEM_BYTES_MAX).decode(errors="replace")
    except OSError as error:
        raise InvalidSettings(f"--private-key {path} can't be read: {error.strerror}") from error


def _room(text: str) -> tuple[str, Right]:
    name, _, right = text.rpartition("=")  # names may have a '=' too
    if not name or right not in ("read", "write", "admin"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=read, NAME=write or NAME=admin")
    return name, Right[right.upper()]
