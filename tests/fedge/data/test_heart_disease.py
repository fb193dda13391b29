from pathlib import Path

import numpy as np
import pytest

from fedge.data.check import check_data
from fedge.data.heart_disease import (
    COLUMNS,
    heart_from_texts,
    load_heart_disease,
    parse_patients,
)
from fedge.errors import DataError

CHOL = COLUMNS.index("chol")
CHOL_MISSING = len(COLUMNS) + CHOL - 3  # age, sex and cp have no indicator


def _line(age: int, chol: str, grade: int) -> str:
    return f"{age},1,4,120,{chol},0,0,150,0,1.5,2,0,3,{grade}\n"


def _hospital(chol: str) -> str:
    ill = [_line(60 + index, chol, 1 + index % 4) for index in range(10)]
    return "".join(ill) + _line(40, chol, 0) * 5


def _two_hospitals() -> dict[str, str]:
    known = "".join(_line(50, str(200 + index), index % 2) for index in range(20))
    return {"north": known, "south": _hospital("0")}


def test_a_question_mark_and_an_impossible_zero_are_missing() -> None:
    table = parse_patients(_line(50, "?", 0) + _line(51, "0", 3), "north")
    assert table.shape == (2, 14)
    assert np.isnan(table[:, CHOL]).all()
    assert np.isnan(table).sum() == 2
    assert table[1, 0] == 51
    assert table[1, -1] == 3


@pytest.mark.parametrize("line", ["1,2,3\n", "\n", "a" * 9, _line(50, "x", 1)])
def test_a_malformed_line_is_named_by_its_number(line: str) -> None:
    with pytest.raises(DataError, match="north line 2"):
        parse_patients(_line(50, "200", 0) + line, "north")


def test_a_missing_grade_is_refused() -> None:
    line = _line(50, "200", 0).replace(",0\n", ",?\n")
    with pytest.raises(DataError, match="line 1"):
        parse_patients(line, "north")


def test_hospitals_own_their_patients_and_a_fifth_of_each_is_held_out() -> None:
    data = heart_from_texts(_two_hospitals())
    assert data.owner_names == ("north", "south")
    assert np.bincount(data.owners).tolist() == [16, 12]
    assert len(data.test) == 4 + 3
    assert np.bincount(data.test.targets).tolist() == [2 + 1, 2 + 2]
    check_data(data)


def test_missing_values_become_zero_and_their_indicator_one() -> None:
    data = heart_from_texts(_two_hospitals())
    inputs = data.info.normalization.apply(data.train.features)
    south, north = data.owners == 1, data.owners == 0
    assert (inputs[south, CHOL] == 0.0).all()
    assert (inputs[south, CHOL_MISSING] == 1.0).all()
    assert (inputs[north, CHOL_MISSING] == 0.0).all()
    assert abs(inputs[north, CHOL].mean()) < 1e-5  # six digits of the mean
    assert inputs.shape == (28, 23)


def test_a_column_that_nobody_has_is_zero_everywhere() -> None:
    data = heart_from_texts({"south": _hospital("?")})
    check_data(data)
    inputs = data.info.normalization.apply(data.test.features)
    assert (inputs[:, CHOL] == 0.0).all()


def test_without_a_folder_the_user_is_told_what_to_get() -> None:
    with pytest.raises(DataError, match=r"processed\.va\.data[\s\S]*UCI record 45"):
        load_heart_disease(None)


def test_other_patients_are_refused(tmp_path: Path) -> None:
    (tmp_path / "heart-disease").mkdir()
    path = tmp_path / "heart-disease" / "processed.cleveland.data"
    path.write_text(_line(50, "200", 0))
    with pytest.raises(DataError, match=r"cleveland.*sha256"):
        load_heart_disease(tmp_path)


@pytest.mark.local_data
def test_the_real_files_have_their_four_hospitals(data_root: Path) -> None:
    data = load_heart_disease(data_root)
    check_data(data)
    assert data.owner_names == ("cleveland", "hungarian", "switzerland", "va")
    assert len(data.train) + len(data.test) == 303 + 294 + 123 + 200
    everyone = np.concatenate([data.train.targets, data.test.targets])
    assert int(everyone.sum()) == 139 + 106 + 115 + 149
    switzerland = data.train.features[data.owners == 2]
    assert (switzerland[:, CHOL_MISSING] == 1.0).all()
