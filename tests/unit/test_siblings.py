"""Processes that serve one port: what one is asked, all answer."""

import asyncio
import os
from pathlib import Path

import pytest

from crdt_sync import siblings
from crdt_sync.siblings import Siblings


def says(word: str) -> siblings.Tell:
    async def tell(question: str) -> bytes:
        return f"{word} to {question}".encode()

    return tell


async def never(question: str) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def test_one_asks_all_others(tmp_path: Path) -> None:
    first, second, third = (Siblings(tmp_path, 3) for _ in range(3))

    async with second.listening(says("two")), third.listening(says("three")):
        answers = await first.ask("ready")

    assert answers == {1: b"two to ready", 2: b"three to ready"}
    assert first.missing(answers) == 0


async def test_one_that_hangs_or_is_gone_is_left_out_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "ASK_TIMEOUT_S", 0.1)
    first, second, third, _gone = (Siblings(tmp_path, 4) for _ in range(4))

    async with second.listening(never), third.listening(says("three")):
        answers = await first.ask("ready")

    assert answers == {2: b"three to ready"}
    assert first.missing(answers) == 2


async def test_one_that_is_started_in_the_place_of_another_has_its_number(tmp_path: Path) -> None:
    first, second = Siblings(tmp_path, 2), Siblings(tmp_path, 2)
    os.close(first._lock)  # as the kernel does when a process ends
    (tmp_path / "0.socket").touch()

    third = Siblings(tmp_path, 2)

    assert third.number == 0
    async with third.listening(says("three")):
        assert await second.ask("metrics") == {0: b"three to metrics"}


def test_more_than_there_are_numbers_is_refused(tmp_path: Path) -> None:
    one = Siblings(tmp_path, 1)

    with pytest.raises(OSError, match="all 1 numbers are taken"):
        Siblings(tmp_path, 1)
    assert one.number == 0


async def test_a_folder_whose_name_is_too_long_for_a_socket_costs_only_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    one, two = Siblings(folder, 2), Siblings(folder, 2)

    async with one.listening(says("one")):
        answers = await two.ask("ready")

    assert two.missing(answers) == 1
    assert [record.message for record in caplog.records] == ["siblings_unreachable"]
