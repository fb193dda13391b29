from pathlib import Path

from tests.attacks.table import table

PAGE = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_the_page_of_attacks_is_what_the_tests_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == table()


def test_every_row_that_code_can_answer_has_a_test() -> None:
    # A8 and A12 are limits that the documentation states, A18 is about patents.
    rows = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 14, 15, 16, 17}
    for row in rows:
        assert f"\n| A{row} |" in table()
