"""The file of --eval-config: what it may hold, and that whatever it may not is one line."""

import re
from types import SimpleNamespace

import pytest

from rubric_rl.common.errors import UserError
from rubric_rl.data.eval_config import FALLBACK_FLAGS, EvalDataset, resolve


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
        (f"eval: {{default: {{top_k: 5}}, datasets: [{ONE}]}}", "eval.yaml: default cannot be hon"),
        (f"datasets: [{ONE}]\ntop_k: 5", "top_k cannot be honoured; known are datasets, defaults"),
        (
            f"eval: {{datasets: [{ONE}]}}\ndefaults: {{top_k: 5}}",
            "defaults cannot .* known are eval",
        ),
        ("datasets: [{path: '${oc.env:NOT_SET_ANYWHERE}'}]", "NOT_SET_ANYWHERE is not set"),
        ("datasets: [", "broken YAML"),
        ("datasets: [{name: one, path: '${hydra:x}'}]", "x}: .* are filled in here, nothing else"),
        ("datasets: [{name: one, path: '${oc.env:A,${oc.env:B}}'}]", "nothing else"),
        (f"datasets: [{ONE}]\ndefaults: &d {{metadata_overrides: *d}}", "an alias stands inside"),
        ("datasets: [{name: 5, path: x}]", "name of 5 must be a valid string, not 5"),
        ("datasets: [{name: one, path: x, path: y}]", "the key path stands there twice"),
        ("datasets: [{name: one, path: x, stop: }]", "stop of one is empty; write a value, or"),
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


@pytest.mark.parametrize(
    "value", ["/a b/x", "/lr #2/x", "/run: 3/x", "[run]/x", "*x/y", "&x", "123", "", "a\tb", "1e3"]
)
def test_a_value_of_the_environment_is_text_whatever_it_looks_like(config, monkeypatch, value):
    monkeypatch.setenv("EVAL_DATA_PATH", value)
    text = "datasets: [{name: one, path: '/rows${oc.env:EVAL_DATA_PATH}'}]"
    (dataset,) = resolve(config(text))
    assert dataset.path == "/rows" + value


@pytest.mark.parametrize("written, read", [("1e-1", 0.1), ("1", 1), ("1.5e+0", 1.5), (".5", 0.5)])
def test_a_number_is_read_as_omegaconf_reads_it(config, written, read):
    text = f"datasets: [{{name: one, path: x, temperature: {written}}}]"
    assert resolve(config(text))[0].temperature == read


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("temperature: hot", "temperature of one must be a valid number, not 'hot'"),
        ("temperature: -1", "temperature of one must be greater than or equal to 0, not -1"),
        ("temperature: .nan", "temperature of one must be a finite number"),
        ("temperature: true", "temperature of one must be a valid number, not True"),
        ("n_samples_per_eval_prompt: '2'", "must be a valid integer, not '2'"),
        ("n_samples_per_eval_prompt: 0", "must be greater than or equal to 1, not 0"),
        ("max_response_len: 1e3", "must be a valid integer, not 1000.0"),
        ("max_response_len: ", "max_response_len of one is empty"),
        ("top_p: 1.5", "top_p of one must be less than or equal to 1, not 1.5"),
        ("top_k: 0", "top_k of one must be 1 or more, or -1 for all tokens, not 0"),
        ("apply_chat_template_kwargs: [1]", "must be a valid dictionary"),
        ("stop: end", "stop of one must be a valid list, not 'end'"),
        ("stop_token_ids: [a]", "must be a valid integer, not 'a'"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(config, line, complaint):
    text = f"datasets:\n  - name: one\n    path: x\n    {line}\n"
    with pytest.raises(UserError, match=re.escape(complaint)):
        resolve(config(text))
