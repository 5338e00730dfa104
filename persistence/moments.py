"""Moments as numbers: microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
from typing import Final, overload

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Return a moment as a number."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


@overload
def moment(micros: int) -> datetime: ...
@overload
def moment(micros: None) -> None: ...
def moment(micros: int | None) -> datetime | None:
    """Return the moment that a number stands for."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
