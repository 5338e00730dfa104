"""Whether content shows the same, whoever wrote it, and however it was cut or encoded.

Owns what counts as equal, by text that is equal for it. Not recursive along shared types.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256

from .copies import Piece, last_unit, whole
from .javascript import parse_json, to_tagged
from .order import Item, Type
from .structure import EMBED, FORMAT, STRING, TYPE


def tokens(piece: Piece) -> Iterator[tuple[str, int]]:
    """What a piece shows, one by one, with the units of each: single characters as they are, all else as longer text."""
    if piece.item.ref == TYPE:
        yield _digest(piece.item.content), 1
    else:
        yield from _tokens(piece)


def _tokens(piece: Piece) -> Iterator[tuple[str, int]]:
    item = piece.item
    if item.ref == STRING:
        for character in piece.text:
            yield character, 2 if character > "\uffff" else 1
    elif item.ref == FORMAT:
        key, value = item.content
        yield f"format {json.dumps(key)} {_written(parse_json(value))}", 1
    elif item.ref == EMBED:
        yield f"embed {_written(item.content[0])}", 1
    else:
        for value in item.content[piece.start : piece.stop]:
            # The order of members doesn't count: pycrdt changes it.
            yield f"value {_written(to_tagged(value))}", 1


def _digest(type_: Type) -> str:
    """Of everything that a type shows."""
    types = [type_]
    for each in types:
        items = (*each.sequence.visible(), *(item for _, item in each.entries()))
        types.extend(item.content for item in items if item.ref == TYPE)
    done: dict[Type, str] = {}
    for each in reversed(types):
        digest = sha256(f"type {each.kind} {json.dumps(each.name)}".encode())
        for item in each.sequence.visible():
            digest.update(_whole(whole(item), done))
        for key, item in each.entries():
            digest.update(f"\nkey {json.dumps(key)}".encode() + _whole(last_unit(item), done))
        done[each] = f"type {digest.hexdigest()}"
    return done[type_]


def _whole(piece: Piece, done: Mapping[Type, str]) -> bytes:
    item: Item = piece.item
    if item.ref == STRING:
        # Without anything in between, since it may be cut anywhere.
        return json.dumps(piece.text)[1:-1].encode()
    parts = [done[item.content]] if item.ref == TYPE else [token for token, _ in _tokens(piece)]
    return "".join(f"\n{part}" for part in parts).encode()


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True)
