"""The file of --eval-config: what it may hold, and that whatever it may not is one line."""

from types import SimpleNamespace

import pytest

from rubric_rl.data.eval_config import FALLBACK_FLAGS, EvalDataset, resolve
from rubric_rl.errors import UserError


def flags(**values) -> SimpleNamespace:
    """Parsed flags, all of them unset but these."""
    names = {name for group in FALLBACK_FLAGS.values() for name in group}
    names |= {"eval_config", "eval_prompt_data"}
    return SimpleNamespace(**(dict.fromkeys(names) | values))


@pytest.fixture
def config(tmp_path):
    """Writes the text to a file; returns the flags that name it."""

    def written(text: str, **values) -> SimpleNamespace:
        path = tmp_path / "eval.yaml"
        path.write_text(text)
        return flags(eval_config=str(path), **values)

    return written


def test_a_field_is_the_data_sets_then_the_defaults_then_the_first_flag_that_is_set(config):
    text = """
eval:
  defaults: {temperature: 0.5, top_k: 5}
  datasets:
    - {name: one, path: one.jsonl, temperature: 0.0}
    - {name: two, path: two.jsonl}
"""
    args = config(text, eval_temperature=0.9, rollout_top_p=0.8, eval_top_p=0.7, rollout_top_k=9)
    one, two = resolve(args)
    assert (one.temperature, two.temperature) == (0.0, 0.5)
    assert (one.top_p, one.top_k, one.stop) == (0.7, 5, None)


def test_data_sets_may_be_a_mapping_of_names_without_the_word_eval(config):
    (dataset,) = resolve(config("datasets: {hard: {path: hard.jsonl}}"))
    assert dataset == EvalDataset(name="hard", path="hard.jsonl")


def test_pairs_of_the_flag_and_nothing_at_all():
    pairs = ["one", "one.jsonl", "two", "two.jsonl"]
    names = [dataset.name for dataset in resolve(flags(eval_prompt_data=pairs))]
    assert names == ["one", "two"]
    assert resolve(flags()) == []
    with pytest.raises(UserError, match="pairs of a name and a path"):
        resolve(flags(eval_prompt_data=pairs[:3]))


ONE = "{name: one, path: one.jsonl}"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "no data sets under eval.datasets"),
        ("- 1", "no data sets under eval.datasets"),
        ("eval:", "no data sets under eval.datasets"),
        ("datasets: [1]", "no data sets under eval.datasets"),
        ("datasets: {one: 1}", "no data sets under eval.datasets"),
        (f"datasets: [{ONE}]\ndefaults: [1]", "eval.defaults must hold"),
        (f"datasets: [{ONE}, {ONE}]", "two data sets have the same name"),
        ("datasets: [{name: one}]", "each data set needs a name and a path"),
        ("datasets: [{name: one, path: x, tempratur: 1, 5: 6}]", "5, tempratur cannot be honoured"),
        ("datasets: [{path: '${oc.env:NOT_SET_ANYWHERE}'}]", "NOT_SET_ANYWHERE is not set"),
        ("datasets: [", "not YAML"),
    ],
)
def test_any_other_form_is_one_line(config, text, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        resolve(config(text))
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_or_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/none.yaml: no such file"):
        resolve(flags(eval_config=str(tmp_path / "none.yaml")))
    with pytest.raises(UserError, match=r"/proc/self/mem: cannot be read"):
        resolve(flags(eval_config="/proc/self/mem"))
