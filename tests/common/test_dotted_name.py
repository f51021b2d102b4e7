"""A dotted name gives its function, or the reason why there is none, in one line."""

import json

import pytest

from rubric_rl.common.dotted_name import import_function
from rubric_rl.common.errors import UserError


def test_a_function_is_found():
    assert import_function("json.dumps") is json.dumps
    assert import_function("os.path.join").__name__ == "join"


@pytest.mark.parametrize(
    "dotted_name, reason",
    [
        ("plain", "no module is named, as in module.function"),
        ("", "no module is named, as in module.function"),
        ("nowhere.reward", "ModuleNotFoundError: No module named 'nowhere'"),
        ("json.absent", "AttributeError: module 'json' has no attribute 'absent'"),
        ("os.path", "not a function"),
        ("defect.hook", "RuntimeError: first second"),
        ("ends.hook", "SystemExit: no GPU here"),
    ],
)
def test_a_name_without_a_function_is_one_line(tmp_path, monkeypatch, dotted_name, reason):
    (tmp_path / "defect.py").write_text("raise RuntimeError('first\\nsecond')\n")
    (tmp_path / "ends.py").write_text("raise SystemExit('no GPU here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        import_function(dotted_name)
    assert str(caught.value) == reason
