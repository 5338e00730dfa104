"""What happens before anybody decides to go back. What comes of it is in `tests/interop/test_past_api.py`."""

from datetime import UTC, datetime

from crdt_sync.document import Document
from crdt_sync.time_machine import Point, TimeMachine
from persistence import Entry
from persistence.memory import MemoryStore
from tests.support.fakes import Editor, text_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_what_a_user_did_is_taken_back_while_others_write_what_is_not_stored_yet() -> None:
    store, shown, ann, eve = MemoryStore(), Document(), Editor(1), Editor(2)
    await store.open()
    for user, update in (("ann", ann.type("plan")), ("eve", eve.type("SPAM"))):
        shown.apply(update)
        await store.append([Entry("trip", [update], accepted_at=NOW, user_id=user)])
    shown.apply(ann.type(" more"))

    plan = await TimeMachine(store).plan_rollback("trip", "eve", Point(seq=0))

    assert plan.restoration.impossible == ()
    assert plan.restoration.update is not None
    shown.apply(plan.restoration.update)
    assert text_of(shown.diff(b"\0")) == "plan more"
