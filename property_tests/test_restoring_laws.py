"""Laws of going back: a document shows again what it showed, whatever was done since, and by whom."""

import contextlib
import random
from dataclasses import dataclass

import pytest

from crdt_sync.content import read_content
from crdt_sync.document import Document, Outcome
from crdt_sync.errors import SyncError
from crdt_sync.order import Item, read_roots
from crdt_sync.ranges import Ranges
from crdt_sync.restoring import NOT_A_PAST, Restoration, as_new, restore
from crdt_sync.rollback import OTHERS_INSIDE, roll_back
from crdt_sync.structure import STRING
from crdt_sync.update import read_state_vector, read_update
from property_tests.test_content_laws import KINDS, has_crossed_origins, rich
from tests.support.grammar import FOUNDATION, block, hostile_update, item, update, var_bytes, var_uint
from tests.support.restoring import shown, state
from tests.support.yjs import History, Yjs

RESTORER, RETURNER, OFFLINE = 77_777, 88_888, 66_666
TRIALS = [50, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]


@dataclass(slots=True)
class Trial:
    """A history that is gone back in."""

    history: History
    then: int
    """How many updates there were at the moment that counts."""
    now: int
    """How many there are when it is gone back; the rest comes later."""

    @property
    def before(self) -> bytes:
        return state_of(self.history.updates[: self.then])

    @property
    def current(self) -> bytes:
        return state_of(self.history.updates[: self.now])


def state_of(updates: list[bytes]) -> bytes:
    document = Document()
    for each in updates:
        document.apply(each)
    return document.diff(b"\0")


def trial_of(seed: int, yjs: Yjs) -> Trial:
    rng = random.Random(seed)
    history = yjs.generate(
        seed,
        clients=rng.choice((2, 3, 5)),
        steps=rng.choice((20, 60, 150)),
        emoji=rng.random() < 0.5,
        odd=rng.random() < 0.5,
        gc=rng.random() < 0.6,
        undo=rng.random() < 0.5,
        exchange=rng.choice((0.02, 0.1, 0.5, 0.9)),
    )
    then = rng.randrange(len(history.updates) + 1)
    return Trial(history, then, rng.randrange(then, len(history.updates) + 1))


def check_yjs_shows(yjs: Yjs, updates: list[bytes], expected: bytes, seed: int) -> None:
    """Compare what Yjs shows after updates with what it shows of a state."""
    kinds = {name: KINDS[node.kind] for name, node in read_content(expected).roots.items()} or {"none": "array"}
    loaded, wanted = yjs.apply(updates, kinds), yjs.apply([expected], kinds)
    assert (loaded.error, loaded.pending, wanted.error) == (None, False, None), f"seed {seed}"
    assert rich(loaded.content) == rich(wanted.content), f"seed {seed}"


@pytest.mark.parametrize("trials", TRIALS)
def test_a_document_shows_what_it_showed_and_can_go_forth_again(trials: int, yjs: Yjs) -> None:
    edits = 0
    for seed in range(trials):
        trial = trial_of(seed, yjs)
        target, current = trial.before, trial.current

        restoration = restore(current, target, client=RESTORER)

        assert restoration.impossible == (), f"seed {seed}"
        made = [restoration.update] if restoration.update else []
        edits += len(made)
        restored = state(current, *made) if trial.now else current
        assert shown(restored) == shown(target), f"seed {seed}"
        check_yjs_shows(yjs, [current, *made], target, seed)
        assert restore(restored, target, client=RETURNER).update is None, f"seed {seed}"
        back = restore(restored, current, client=RETURNER).update
        forth = [back] if back else []
        assert bool(forth) == bool(made), f"seed {seed}"
        assert shown(state(restored, *forth) if trial.now else restored) == shown(current), f"seed {seed}"
        check_yjs_shows(yjs, [current, *made, *forth], current, seed)
    assert edits > trials / 2


@pytest.mark.parametrize("trials", TRIALS)
def test_what_was_done_meanwhile_merges_in_any_order(trials: int, yjs: Yjs) -> None:
    marked = 0
    for seed in range(trials):
        trial = trial_of(seed, yjs)
        target, current = trial.before, trial.current
        restored = restore(current, target, client=RESTORER).update
        if restored is None:
            continue
        later = trial.history.updates[trial.now :]

        one, other = state_of([current, restored, *later]), state_of([current, *later, restored])

        assert shown(one) == shown(other), f"seed {seed}"
        check_yjs_shows(yjs, [current, *later, restored], one, seed)
        # Somebody was offline, and wrote something at the end of a word that may be gone now.
        word = a_word(random.Random(seed), current)
        if word is not None and shown(target).get("text", {}).get("$") == "text":
            marked += 1
            left = var_uint(word.client) + var_uint(word.clock + word.length - 1)
            offline = update(block(OFFLINE, 0, item(STRING | 128, left, var_bytes(b"#"))))
            merged = read_content(state(current, restored, offline)).to_json()
            assert without_mark(merged["text"]) == read_content(target).to_json()["text"], f"seed {seed}"
            assert merged == read_content(state(current, offline, restored)).to_json(), f"seed {seed}"
    assert marked > trials / 8


@pytest.mark.parametrize("trials", TRIALS)
def test_whatever_a_document_takes_it_can_go_back_from(trials: int, yjs: Yjs) -> None:
    refused = 0
    for seed in range(trials):
        rng = random.Random(seed)
        document = Document()
        document.apply(FOUNDATION)
        targets = [document.diff(b"\0")]
        for _ in range(30):
            with contextlib.suppress(SyncError):
                document.apply(hostile_update(rng, read_state_vector(document.state_vector())))
                targets.append(document.diff(b"\0"))
        target, current = rng.choice(targets), targets[-1]

        restoration = restore(current, target, client=RESTORER)

        if restoration.impossible:
            refused += 1
            assert restoration == Restoration(None, (NOT_A_PAST,)), f"seed {seed}"
            continue
        made = [restoration.update] if restoration.update else []
        for each in made:
            assert document.apply(each) is Outcome.NEW, f"seed {seed}"
        # Where the items of those end up depends on what else is there.
        if not has_crossed_origins(current):
            assert shown(document.diff(b"\0")) == shown(target), f"seed {seed}"
            check_yjs_shows(yjs, [current, *made], target, seed)
    assert refused <= trials / 20


def a_word(rng: random.Random, document: bytes) -> Item | None:
    roots = read_roots(document)
    words = [each for each in roots["text"].sequence.visible() if each.ref == STRING] if "text" in roots else []
    return rng.choice(words) if words else None


def without_mark(text: str) -> str:
    assert text.count("#") == 1
    return text.replace("#", "")


@pytest.mark.parametrize("trials", TRIALS)
def test_as_new_a_document_shows_the_same_and_has_no_past(trials: int, yjs: Yjs) -> None:
    for seed in range(trials):
        target = trial_of(seed, yjs).before

        new = as_new(target, client=RESTORER)

        read = read_update(new)
        assert (read.ends.keys() <= {RESTORER}, read.deletes) == (True, {}), f"seed {seed}"
        assert shown(new) == shown(target), f"seed {seed}"
        check_yjs_shows(yjs, [new], target, seed)


@pytest.mark.parametrize("trials", TRIALS)
def test_without_what_one_user_did_a_document_is_as_if_that_had_never_been(trials: int, yjs: Yjs) -> None:
    """As far as others did nothing that builds on it, and didn't delete the same."""
    edits = 0
    for seed in range(trials):
        trial = trial_of(seed, yjs)
        user = random.Random(seed).choice(trial.history.authors or [0])
        before = trial.before
        done, without = independent(trial, user)
        current = state_of([before, *(each for each, _ in done)])

        restoration = roll_back(current, before=before, edits=done, client=RESTORER)

        assert restoration.impossible == (), f"seed {seed}"
        made = [restoration.update] if restoration.update else []
        edits += len(made)
        assert shown(state_of([current, *made])) == shown(without), f"seed {seed}"
        check_yjs_shows(yjs, [current, *made], without, seed)
    assert edits > trials / 4


def independent(trial: Trial, user: int) -> tuple[list[tuple[bytes, bool]], bytes]:
    """What was done until somebody else built on what the user did; and what others alone amount to."""
    others, taken, done = Document(), dict[int, Ranges](), list[tuple[bytes, bool]]()
    for each in trial.history.updates[: trial.then]:
        others.apply(each)
    since = slice(trial.then, trial.now)
    for each, author in zip(trial.history.updates[since], trial.history.authors[since], strict=True):
        ranges = [(client, *span) for client, spans in read_update(each).deletes.items() for span in spans]
        if author == user:
            for client, start, end in ranges:
                taken.setdefault(client, Ranges()).add(start, end)
        else:
            if any(list(taken[client].gaps(*span)) != [tuple(span)] for client, *span in ranges if client in taken):
                break
            if others.apply(each) is Outcome.WAITING:
                break
        done.append((each, author == user))
    return done, state_of([trial.before, *(each for each, own in done if not own)])


@pytest.mark.parametrize("trials", TRIALS)
def test_whatever_a_user_did_can_be_taken_back_once(trials: int, yjs: Yjs) -> None:
    for seed in range(trials):
        trial = trial_of(seed, yjs)
        user = random.Random(seed).choice(trial.history.authors or [0])
        since = slice(trial.then, trial.now)
        pairs = zip(trial.history.updates[since], trial.history.authors[since], strict=True)
        done = [(each, author == user) for each, author in pairs]
        current = trial.current

        restoration = roll_back(current, before=trial.before, edits=done, client=RESTORER)

        assert set(restoration.impossible) <= {OTHERS_INSIDE}, f"seed {seed}"
        made = [restoration.update] if restoration.update else []
        result = state_of([current, *made])
        check_yjs_shows(yjs, [current, *made], result, seed)
        again = roll_back(result, before=trial.before, edits=[*done, *((each, True) for each in made)], client=RETURNER)
        assert again.update is None, f"seed {seed}"
