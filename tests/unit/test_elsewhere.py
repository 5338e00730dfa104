"""Long work in a process of its own."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from crdt_sync.content import Kind, Node
from crdt_sync.elsewhere import Elsewhere, ProcessLost
from crdt_sync.errors import DocumentBroken
from crdt_sync.structure import TYPE_DEPTH_MAX


@asynccontextmanager
async def elsewhere() -> AsyncIterator[Elsewhere]:
    made = Elsewhere()
    try:
        yield made
    finally:
        made.close()


def fail(culprit: bytes) -> None:
    raise DocumentBroken("it doesn't fit", culprit=culprit)


async def test_work_is_done_in_one_process_that_stays() -> None:
    async with elsewhere() as there:
        first, second = await there.run(os.getpid), await there.run(os.getpid)

        assert first == second != os.getpid()
        assert there.pids() == [first]


async def test_what_is_wrong_is_told_as_it_was() -> None:
    async with elsewhere() as there:
        with pytest.raises(DocumentBroken, match="fit") as raised:
            await there.run(fail, b"culprit")

        assert raised.value.culprit == b"culprit"


async def test_a_process_that_crashes_is_told_of_and_replaced() -> None:
    async with elsewhere() as there:
        with pytest.raises(ProcessLost):
            await there.run(signal.raise_signal, signal.SIGKILL)

        assert await there.run(abs, -1) == 1


def nested(depth: int) -> Node:
    node = Node(Kind.ARRAY)
    for _ in range(depth):
        node = Node(Kind.ARRAY, items=[{"inside": [node]}])
    return node


async def test_what_is_nested_as_deep_as_documents_may_be_comes_back() -> None:
    async with elsewhere() as there:
        node = await there.run(nested, 2 * TYPE_DEPTH_MAX)

        depth = 0
        while node.items:
            node = node.items[0]["inside"][0]
            depth += 1
        assert depth == 2 * TYPE_DEPTH_MAX


async def test_closing_ends_what_is_being_done() -> None:
    there = Elsewhere()
    pid = os.pidfd_open(await there.run(os.getpid))

    there.close()

    ended, _, _ = select.select([pid], [], [], 10)
    os.close(pid)
    assert ended
    assert there.pids() == []


def test_the_process_ends_when_the_one_that_made_it_is_killed() -> None:
    script = textwrap.dedent(
        """
        import multiprocessing, os, time
        from concurrent.futures import ProcessPoolExecutor
        from crdt_sync.elsewhere import _follow_parent
        if __name__ == "__main__":
            pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent)
            print(pool.submit(os.getpid).result(), flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        prover = os.pidfd_open(int(server.stdout.readline()))
        server.kill()

    ended, _, _ = select.select([prover], [], [], 10)

    os.close(prover)
    assert ended
