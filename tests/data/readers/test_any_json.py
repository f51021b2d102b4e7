"""The law of all readers: of any JSON comes a row that can be scored, or a DataError."""

import copy
import json

import pytest
from doubles.rubric_sets import SETS
from hypothesis import given, settings
from hypothesis import strategies as st

from rubric_rl.common.errors import DataError
from rubric_rl.data.healthbench import to_row
from rubric_rl.data.readers.registry import READERS, reader_named, reader_of

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
VALUES |= VALUES.map(json.dumps)  # also as JSON text


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value within a JSON value."""
    found = [path] if path else []
    if isinstance(value, (dict, list)):
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in children:
            found += places(each, (*path, key))
    return found


@pytest.mark.parametrize("name, item", [(each[0], each[1]) for each in SETS])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_with_anything_in_a_place(name, item, data):
    item = copy.deepcopy(item)
    *outer, last = data.draw(st.sampled_from(places(item)))
    holder = item
    for key in outer:
        holder = holder[key]
    holder[last] = data.draw(VALUES)
    reader_of(item)
    try:
        row = to_row(reader_named(name).read(item), "f:1")
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert row.rubric and any(each.points > 0 for each in row.rubric)
    json.dumps(row.to_json(), allow_nan=False).encode()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@settings(max_examples=60, deadline=None)
@given(item=st.dictionaries(st.text(max_size=9), VALUES, max_size=4))
def test_an_object_of_anything(reader, item):
    reader.fits(item)
    try:
        to_row(reader.read(item), "f:1")
    except DataError as error:
        assert "\n" not in str(error)
