from tests.support.traces import to_utf16


def test_positions_after_a_character_of_two_units_move_by_one() -> None:
    assert to_utf16([[(0, 0, "a🙂b")], [(2, 0, "x")]]) == [[(0, 0, "a🙂b")], [(3, 0, "x")]]


def test_deleting_a_character_of_two_units_deletes_both() -> None:
    assert to_utf16([[(0, 0, "a🙂b")], [(0, 2, ""), (1, 0, "c")]]) == [[(0, 0, "a🙂b")], [(0, 3, ""), (1, 0, "c")]]


def test_a_replaced_character_counts_no_longer() -> None:
    assert to_utf16([[(0, 0, "🙂🙂b"), (0, 1, "漢"), (2, 1, "")]]) == [[(0, 0, "🙂🙂b"), (0, 2, "漢"), (3, 1, "")]]
