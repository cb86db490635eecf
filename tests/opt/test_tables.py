"""Tables as CSV files: names are text, and one rule turns them into numbers."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qpm_opt import AssignmentProblem, InvalidInputError, cli, read_csv, solve_assignment
from qpm_opt.tables import read_labelled_csv

VALUES = np.random.default_rng(0).random((3, 6))
NAMES: list[tuple[list[str], list[str]]] = [
    (["NA", "None", "True"], ["nan", "null", "False", "N/A", "", "inf"]),
    (["001", "002", "010"], ["01", "02", "03", "04", "05", "06"]),
    (["1e5", "1E5", "0x1"], ["1.0", "1.5", "2.0", "1_0", "1e1", "+1"]),
    (["-1", "-2", "-3"], ["100", "101", "102", "-5", "7", "123"]),
    (["100", "200", "300"], ["a,b", 'say "x"', "2024-01-01", "12:30", "1/2", "é"]),
    (["9" * 30, "2", "3"], [str(10**20 + i) for i in range(6)]),
]


@pytest.mark.parametrize(("classes", "features"), NAMES)
def test_names_are_kept_on_both_axes(tmp_path: Path, classes: list[str], features: list[str]) -> None:
    features = [name or "empty" for name in features]
    A = pd.DataFrame(VALUES, index=classes, columns=features)
    A.to_csv(tmp_path / "A.csv")
    pd.DataFrame(np.eye(6), index=features, columns=features).to_csv(tmp_path / "R.csv")
    pd.Series(np.zeros(6), index=features).to_csv(tmp_path / "b.csv")
    command = ["solve", str(tmp_path / "A.csv"), str(tmp_path / "r.json"), "--n-select", "3", "--n-per-class", "2"]
    command += ["--similarity", str(tmp_path / "R.csv"), "--bias", str(tmp_path / "b.csv"), "--solver", "local_search"]
    assert cli.main(command) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    for key, names in (("class_labels", classes), ("feature_labels", features)):
        assert [str(label) for label in result[key]] == names
        whole = all(name.removeprefix("-").isdecimal() and name[0] != "0" and len(name) < 19 for name in names)
        assert all(isinstance(label, int) == whole for label in result[key])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a,b,a\nx,1,0,1\n", "name its columns once each. Got 'a' in columns 2 and 4. Rename or drop"),
        (",a,b\nx,1,0\ny,1,1\nx,0,1\n", "each row once. Got 'x' in lines 2 and 4"),
        (f",caf\u00e9,{unicodedata.normalize('NFD', 'café')}\nx,1,0\n", "once each. Got 'café' in columns 2 and 3"),
        (";a;b\nx;1;0\n", "separated by commas. Got semicolons. Save it with commas, and points in numbers"),
        ("\ta\tb\nx\t1\t0\n", "separated by commas. Got tabs"),
        (',a,b\nx,"0,5",1\n', "Got '0,5' for 'x' and 'a' in line 2. Write 0.5, with a point"),
        (",a,b\nx,0,5,1\n", "3 cells in every row. Got 4 in line 2, the row of 'x'"),
        (",a,b\nx,,1\n", "Got nothing in line 2, 'a'. Complete it"),
        (",a,b\nx,NA,1\n", "Got 'NA' for 'x' and 'a' in line 2"),
        (",a,b\nx,1_000,1\n", "Got '1_000'"),
        (",a,\nx,1,0\n", "name every column. Got no name in column 3"),
        (",a,b\n ,1,0\n", "name every row. Got no name in line 2"),
        ("x,0.5,0.25\ny,1.5,0\n", "names of its columns, and an empty first cell. Got 'x' and numbers in line 1"),
        ("# of May\n,a,b\nx,1,0\n", "names of its columns. Got '# of May' alone in line 1. Remove what stands before"),
        ("a,b\n", "an empty first cell. Got 'a' there"),
        ("", "Got an empty file"),
        (',a,b\n"x,1,0\n', "that can be read. Got unexpected end of data"),
    ],
)
def test_tables_that_are_refused_name_the_cure(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "A.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_labelled_csv(path)
    assert "A.csv" in str(caught.value)


def test_other_encodings_are_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "A.csv"
    for encoding in ("utf-16", "latin-1"):
        path.write_text(",é\nx,1\n", encoding=encoding)
        with pytest.raises(InvalidInputError, match=r"must be text in UTF-8.*'CSV UTF-8'"):
            read_csv(path)


def test_marks_blanks_and_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "A.csv"
    path.write_text('\ufeffclass, a , "b, c",A\r\n x , 1 ,2,3\r\n\r\n"y",4,5,6\r\n', encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        frame = read_labelled_csv(path)
    assert (list(frame.index), list(frame.columns)) == (["x", "y"], ["a", "b, c", "A"])
    assert frame.to_numpy().tolist() == [[1, 2, 3], [4, 5, 6]]
    assert "'a' and 'A' differ in case only" in caplog.text


def test_two_spellings_are_one_name() -> None:
    composed, apart = (unicodedata.normalize(form, "한국") for form in ("NFC", "NFD"))
    assert composed != apart
    problem = AssignmentProblem(
        VALUES, n_select=3, n_per_class=2, class_labels=[apart, "b", "c"], forbidden_pairs=[(composed, 0)]
    )
    assert problem.class_labels == (composed, "b", "c")
    assert problem.replaced(required_pairs=[(apart, 1)]).required_pairs.tolist() == [[0, 1]]
    frame = pd.DataFrame(VALUES, columns=[*"abcde", apart])
    bias = pd.Series(np.zeros(6), index=[*"abcde", composed])
    assert solve_assignment(frame, None, bias, n_select=3, n_per_class=2, required_features=[composed]).solution
    with pytest.raises(InvalidInputError, match="must not repeat a label"):
        AssignmentProblem(VALUES, n_select=3, n_per_class=2, class_labels=[apart, composed, "c"])
