"""Files of raw rows, and a folder for what is made of them."""

import pytest
from doubles.raw_files import make_source, raw


@pytest.fixture
def source(tmp_path):
    rows = [raw(number) for number in range(10)]
    return make_source(tmp_path, rows, rows[6:])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
