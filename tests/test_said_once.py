"""What several rooms lean on: errors of libraries as one line, libraries imported late, leaves and
entries by name."""

import subprocess
import sys

import numpy as np
import pytest

from sfumato.core import checks, trees, typed_json
from sfumato.core.errors import ArgumentError, DataError, data_error


def test_what_a_library_raises_is_one_line_of_ours():
    with pytest.raises(DataError) as caught, data_error("x.bin: cannot be read", "fetch it again"):
        raise ValueError("two\nlines")
    assert str(caught.value) == "x.bin: cannot be read (two lines); fetch it again"
    with pytest.raises(DataError, match=r"^a \(b\)$"), data_error("a"):
        raise OSError("b")


def test_our_own_errors_and_those_of_other_kinds_pass():
    with pytest.raises(ArgumentError), data_error("a"):
        raise ArgumentError("n", 0, "give more")
    with pytest.raises(ZeroDivisionError), data_error("a", kinds=(OSError, ValueError)):
        raise ZeroDivisionError


def test_kinds_of_labels_are_known_without_numpy_until_labels_come():
    program = (
        "import sys; from sfumato.core.tasks import MULTI, SINGLE; assert SINGLE.flat_norm(2) < 1\n"
        "assert not {'numpy', 'jax', 'optax'} & set(sys.modules)\n"
        "assert SINGLE.count([0, 1], [0, 0], 2).tolist() == [[1, 0], [1, 0]]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_leaves_by_name_keep_their_order_and_flat_is_their_numbers():
    tree = {"b": np.arange(2), "a": [np.ones((2, 2)), np.zeros(1)]}
    assert list(trees.by_name(tree)) == ["a/0", "a/1", "b"]
    assert trees.flat(tree).tolist() == [1, 1, 1, 1, 0, 0, 1] and trees.flat(tree).dtype == float


def test_entries_of_nested_objects_have_the_names_of_all_that_they_are_in():
    nested = {"a": {"b": 1, "c": {"d": [2]}, "e": {}}, "f": None}
    assert dict(typed_json.entries(nested)) == {"a.b": 1, "a.c.d": [2], "f": None}
    assert [name for name, _ in typed_json.entries(nested, " ")] == ["a b", "a c d", "f"]


def test_a_new_file_needs_a_folder_and_a_free_name(tmp_path):
    checks.new_file("out", tmp_path / "new")
    (tmp_path / "old").touch()
    for path, why in ((tmp_path / "old", "exists already"), (tmp_path / "no/x", "no such folder")):
        with pytest.raises(ArgumentError, match=why):
            checks.new_file("out", path)
