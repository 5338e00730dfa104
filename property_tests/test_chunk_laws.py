"""Laws of chunks: whatever rows are packed come back, however they are cut."""

from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from persistence import Row
from persistence.chunks import pack_rows, span_of, unpack_rows, without_blob

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROWS = st.lists(
    st.builds(
        Row,
        st.integers(1, 3),  # how far after the row before
        st.binary(max_size=200),
        st.none() | TEXT,
        st.datetimes(timezones=st.just(UTC)),
    ),
    max_size=40,
)


@given(st.integers(0, 2**62), ROWS)
def test_rows_come_back_as_they_were(before: int, steps: list[Row]) -> None:
    rows = []
    for step in steps:
        before += step.seq
        rows.append(step._replace(seq=before))

    chunks = pack_rows(rows)

    unpacked = [unpack_rows("x", chunk) for chunk in chunks]
    assert [row for part in unpacked for row in part] == rows
    assert [without_blob(chunk) for chunk in chunks] == [span_of(part) for part in unpacked]
    assert all(part[-1].seq - part[0].seq == len(part) - 1 for part in unpacked)
