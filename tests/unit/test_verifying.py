"""What is found out about a stored document: damage of each kind, and nothing where there is none."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from crdt_sync.apart import Apart
from crdt_sync.document import Document, digest
from crdt_sync.verifying import ADVICE, Checked, Finding, check
from persistence import Export, Row, Snapshot, Version, VersionContent
from persistence.chunks import pack_rows
from tests.support.fakes import Editor, typed
from tests.support.yjs import Yjs

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def stored(updates: Sequence[bytes], *, folded: int = 0) -> Export:
    """A document as a server would have stored it, with a snapshot of the first `folded` updates."""
    document = Document()
    for update in updates[:folded]:
        document.apply(update)
    state = document.state()
    snapshot = Snapshot(
        "x", seq=folded or 1, state=state.update, waiting=state.waiting, state_vector=state.state_vector
    )
    rows = tuple(Row(seq, update, "ann", NOW) for seq, update in enumerate(updates, 1) if seq > folded)
    return Export("x", NOW, len(updates), snapshot if folded else None, rows)


def with_history(updates: Sequence[bytes], *, folded: int, kept_from: int = 1, version: int | None = None) -> Export:
    """The same, with the updates that the snapshot has, as far as they are kept, and perhaps a version of a seq."""
    export = stored(updates, folded=folded)
    rows = [Row(seq, update, "ann", NOW) for seq, update in enumerate(updates, 1) if kept_from <= seq <= folded]
    chunks = [chunk for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]) for chunk in pack_rows(part)]
    versions = []
    if version is not None:
        copied = stored(updates, folded=version).snapshot
        assert copied is not None
        versions.append(VersionContent(Version(1, version, NOW, "auto", None, None, ("ann",), 1, True), copied))
    return replace(export, chunks=tuple(chunks), versions=tuple(versions))


def with_snapshot(export: Export, **changes: object) -> Export:
    assert export.snapshot is not None
    return replace(export, snapshot=replace(export.snapshot, **changes))  # type: ignore[arg-type]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def kinds(checked: Checked) -> list[str]:
    assert all(problem.kind in ADVICE for problem in checked.problems)
    return [problem.kind for problem in checked.problems]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("folded", [0, 30, 60], ids=["log", "both", "snapshot"])
def test_document_that_real_yjs_made_is_in_order(yjs: Yjs, seed: int, folded: int) -> None:
    updates = yjs.generate(seed, clients=3, steps=60).updates
    folded = min(folded, len(updates))
    export = stored(updates, folded=folded)

    checked = check(export)

    assert (checked.problems, checked.waiting, checked.quarantined) == ((), 0, 0)
    assert (checked.updates, checked.has_snapshot) == (len(updates) - folded, folded > 0)
    assert checked.payload_bytes > 20 * len(updates[folded:])


def test_missing_seqs_are_found() -> None:
    export = stored(typed("abcdef"))
    rows = export.rows

    alone = check(replace(export, rows=rows[:2] + rows[3:]))
    several = check(replace(export, rows=rows[:2] + rows[4:]))
    at_the_end = check(replace(export, rows=rows[:-1]))

    assert alone.problems == (Finding("missing", "update 3 is missing: the log has to have 1 to 6"),)
    assert several.problems == (Finding("missing", "updates 3 to 4 are missing: the log has to have 1 to 6"),)
    assert kinds(at_the_end) == ["missing"]


def test_log_that_goes_on_after_its_end_is_found() -> None:
    export = stored(typed("abc"), folded=2)

    assert kinds(check(replace(export, head_seq=2))) == ["beyond"]
    assert kinds(check(replace(export, head_seq=1, rows=()))) == ["beyond"]


def test_update_that_is_malformed_is_found_with_its_seq() -> None:
    export = stored(typed("abc"))
    rows = (export.rows[0], export.rows[1]._replace(update=b"\x01\x01\x00"), export.rows[2])

    (problem,) = check(replace(export, rows=rows)).problems

    assert (problem.kind, problem.seq) == ("malformed", 2)
    assert problem.text.startswith("the update with seq 2 is malformed: ")


def test_update_that_fits_nowhere_is_found_with_its_seq() -> None:
    # Client 2 puts an item into a map that is inside of client 1's letter, which can't hold any.
    inside_of_a_letter = bytes.fromhex("0101020028000100016b017d0100")
    export = stored([*typed("abc"), inside_of_a_letter])

    (problem,) = check(export).problems

    assert (problem.kind, problem.seq) == ("misfit", 4)


def test_update_that_waits_is_told_and_no_problem() -> None:
    first, _, third, fourth = typed("abcd")

    checked = check(stored([first, third]))
    assert (checked.problems, checked.waiting) == ((), 1)
    assert check(stored([first, third, fourth], folded=2)).waiting == 2


def test_quarantined_update_is_left_out_and_told() -> None:
    updates = typed("abc")

    checked = check(stored(updates), {digest(updates[2])})

    assert (checked.problems, checked.waiting, checked.quarantined) == ((), 0, 1)


def test_quarantined_snapshot_is_found() -> None:
    export = stored(typed("abc"), folded=3)
    assert export.snapshot is not None

    assert kinds(check(export, {digest(export.snapshot.state)})) == ["crashes"]


@pytest.mark.parametrize("folded", [2, 3])
def test_snapshot_of_another_document_is_found(folded: int) -> None:
    export, other = stored(typed("abc"), folded=folded), stored(typed("xyzzy"), folded=5)
    assert other.snapshot is not None

    assert kinds(check(with_snapshot(export, state=other.snapshot.state))) == ["snapshot"]


def test_snapshot_older_than_it_says_is_found() -> None:
    old, new = stored(typed("abcde"), folded=2), stored(typed("abcde"), folded=4)
    assert old.snapshot is not None

    (problem,) = check(with_snapshot(new, state=old.snapshot.state)).problems

    assert problem.kind == "snapshot"
    assert problem.text.endswith("of client 1 it says 4, the state has 2")


def test_snapshot_that_can_not_be_read_is_found() -> None:
    export = stored(typed("abc"), folded=2)

    for change in ({"state": b""}, {"state": b"\x00"}, {"state_vector": b"\x01"}, {"waiting": (b"\x01",)}):
        assert kinds(check(with_snapshot(export, **change))) == ["snapshot"]


def test_snapshot_whose_state_lacks_its_beginning_is_found() -> None:
    export = stored(typed("abc"), folded=2)

    assert "snapshot" in kinds(check(with_snapshot(export, state=typed("abc")[1])))


def test_rows_are_looked_at_even_if_the_snapshot_is_damaged() -> None:
    export = stored(typed("abcd"), folded=2)
    rows = (export.rows[0]._replace(update=b"\xff"), export.rows[1])

    assert kinds(check(with_snapshot(replace(export, rows=rows), state=b"\xff"))) == ["snapshot", "malformed"]


@pytest.mark.parametrize(("kept_from", "version"), [(1, None), (1, 20), (21, 20), (11, 20), (30, None), (30, 10)])
def test_history_in_order(yjs: Yjs, kept_from: int, version: int | None) -> None:
    updates = yjs.generate(3, clients=3, steps=60).updates

    checked = check(with_history(updates, folded=50, kept_from=kept_from, version=version))

    assert (checked.problems, checked.history_updates) == ((), 51 - kept_from)
    assert checked.versions == (version is not None)


@pytest.mark.parametrize(("kept_from", "version"), [(1, None), (3, 2), (3, 3)])
def test_letter_of_the_snapshot_that_became_another_is_found_as_far_as_history_is_kept(
    kept_from: int, version: int | None
) -> None:
    export = with_history(typed("abcdef"), folded=5, kept_from=kept_from, version=version)
    assert export.snapshot is not None
    changed = with_snapshot(export, state=export.snapshot.state.replace(b"abcde", b"abXde"))
    too_short = replace(changed, chunks=changed.chunks[1:], versions=())

    assert kinds(check(changed)) == ["differs"]
    assert kinds(check(too_short)) == []
    assert kinds(check(with_snapshot(changed, whole=False))) == []


def test_damaged_history_is_found() -> None:
    export = with_history(typed("abcdefgh"), folded=6)
    first, second = export.chunks
    flip = replace(first, blob=flipped(first.blob, 8 * (len(first.blob) - 2)))
    no_update = pack_rows([Row(4, b"\xff", "ann", NOW), Row(5, b"\xff", "ann", NOW), Row(6, b"\xff", "ann", NOW)])
    (short,) = pack_rows([Row(seq, typed("abcdefgh")[seq - 1], "ann", NOW) for seq in (1, 2)])

    assert kinds(check(replace(export, chunks=(flip, second)))) == ["history"]
    assert kinds(check(replace(export, chunks=(first, *no_update)))) == ["history"] * 3
    assert kinds(check(replace(export, chunks=(short, second)))) == ["history"]
    assert kinds(check(replace(export, chunks=(first,)))) == ["history"]


def test_damaged_version_is_found_and_named() -> None:
    export = with_history(typed("abcdef"), folded=5, version=3)
    (content,) = export.versions
    damaged = replace(content, snapshot=replace(content.snapshot, state=b"\xff"))

    (problem,) = check(replace(export, versions=(damaged,))).problems

    assert problem.kind == "version"
    assert problem.text.startswith("the snapshot of version 1's state can't be loaded: ")


def test_flipped_bits_are_found_unless_they_make_sense(yjs: Yjs) -> None:
    """What is missed is content that became other content, clocks that stay consistent and the like.

    Found here: of 400 flips each, 46 % in updates and 70 % in a snapshot as problems, and 29 % in updates as what waits.
    """
    export = stored(yjs.generate(7, clients=3, steps=80).updates, folded=40)
    assert export.snapshot is not None
    dice = random.Random(1)
    in_rows = in_snapshot = 0
    for _ in range(400):
        at = dice.randrange(len(export.rows))
        row = export.rows[at]
        bad = row._replace(update=flipped(row.update, dice.randrange(8 * len(row.update))))
        checked = check(replace(export, rows=(*export.rows[:at], bad, *export.rows[at + 1 :])))
        in_rows += bool(checked.problems or checked.waiting)
        state = flipped(export.snapshot.state, dice.randrange(8 * len(export.snapshot.state)))
        in_snapshot += bool(check(with_snapshot(export, state=state)).problems)
    vector = export.snapshot.state_vector
    in_vector = [
        bool(check(with_snapshot(export, state_vector=flipped(vector, n))).problems) for n in range(8 * len(vector))
    ]

    assert in_rows >= 260
    assert in_snapshot >= 240
    assert all(in_vector)


def test_crash_of_the_process_that_checks_is_a_problem_of_the_document() -> None:
    apart = Apart(limit_s=60)
    export = stored(typed("abc"))
    try:
        before = apart.check(export, ())
        assert apart._process is not None
        apart._process.kill()
        apart._process.join()
        crashed = apart.check(export, ())
        after = apart.check(export, ())
    finally:
        apart.close()

    assert crashed.problems == (Finding("crashes", "a process that loads the document ends with SIGKILL"),)
    assert before == after == check(export)


def test_document_that_takes_too_long_is_a_problem() -> None:
    editor = Editor(1)
    apart = Apart(limit_s=1)
    try:
        slow = apart.check(stored([editor.type("x")] + [editor.type("y")] * 200_000), ())
    finally:
        apart.close()

    assert slow.problems == (Finding("crashes", "a process that loads the document takes longer than 1 s"),)


def test_large_updates_that_wait_for_each_other_are_in_order() -> None:
    one, two = Editor(1), Editor(2)
    updates = [one.type("a" * 100_000), two.type("b" * 100_000)]

    assert check(stored(updates)).problems == ()
    assert check(stored(updates, folded=2)).problems == ()
