"""What the tests of one request share."""

import pytest
from doubles.engine import chat_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return chat_model(tmp_path_factory.mktemp("model"))
