"""The command line: slime's names and defaults, refusals, checks between flags, settings files."""

import re
import shlex
import subprocess

import pytest
from doubles.trainer import FLAGS, make_args

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.cpu import flags
from rubric_rl.cpu.run_directory import FREE_FLAGS
from rubric_rl.serving.endpoint import GRADER


def refusal(*more: str) -> str:
    with pytest.raises(UserError) as caught:
        make_args(*more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_slimes_defaults():
    args = make_args()
    assert args.eps_clip == args.eps_clip_high == 0.2
    assert (args.lr, args.adam_beta2, args.clip_grad) == (1e-6, 0.999, 1.0)
    assert (args.rollout_seed, args.seed) == (42, 1234)
    assert (args.rollout_temperature, args.kl_loss_type) == (1.0, "k1")
    assert args.over_sampling_batch_size == args.rollout_batch_size == 4
    assert args.apply_chat_template_kwargs == {} and args.grpo_std_normalization
    assert not args.calculate_per_token_loss


def test_no_flag_is_taken_and_then_ignored():
    """Each one is read somewhere in the trainer, or says what holds here anyway."""
    holds_anyway = {"accumulate_allreduce_grads_in_fp32", "attention_softmax_in_fp32"}
    code = ""
    for path in (ROOT / "rubric_rl").rglob("*.py"):
        text = path.read_text()
        if path.name == "flags.py":  # after the parser, which names every flag
            _, _, text = text.partition("\ndef parse(")
            assert text
        if path.name == "run_directory.py":  # without its list of flags that may change
            text, lists = re.subn(r"(?ms)^FREE_FLAGS = .*?^\)$", "", text)
            assert lists == 1
        code += text
    ignored = {name for name in vars(make_args()) if not re.search(rf"\b{name}\b", code)}
    assert ignored == holds_anyway


def test_every_flag_that_may_change_is_one():
    named = {name for name in FREE_FLAGS if not name.startswith(GRADER)}
    assert named - vars(make_args()).keys() == set()


def test_steps_per_rollout_give_the_batch():
    size = FLAGS.index("--global-batch-size")
    without = FLAGS[:size] + FLAGS[size + 2 :]
    args = flags.parse([*without, "--num-steps-per-rollout", "4", "--lr-warmup-iters", "11"])
    assert args.global_batch_size == 2  # 8 answers; 12 steps in all


def test_the_last_word_wins():
    assert make_args("--lr", "1e-3", "--lr", "2e-3").lr == 2e-3


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["--rolout-batch-size", "3"],
            "unknown flag, which slime would ignore; did you mean --rollout-batch-size?",
        ),
        (["--rollout-batch", "3"], "an abbreviation; write --rollout-batch-size"),
        (["--xyzzy=3"], "--xyzzy is an unknown flag"),
        (
            ["--sequence-parallel"],
            "--sequence-parallel is slime's, but the trainer without a GPU cannot honour it",
        ),
        (["--sglang-mem-fraction-static", "0.7"], "--sglang-mem-fraction-static is slime's"),
        (["--partial-rollout"], "half-written answer"),
        (["--group-rm"], "one answer at a time"),
        (["--use-tis"], "--use-tis is slime's"),
        (["--keep-old-actor"], "--keep-old-actor is slime's"),  # 0.3.1's
        (["--rollout-session-id", "a"], "--rollout-session-id is slime's"),  # 0.4's
        (["--wandb-key=secret"], "--wandb-key: a key on a command line is seen by every user"),
        (["--micro-batch-size", "4"], "packed by tokens: --max-tokens-per-gpu"),
        (["--use-slime-router"], "--use-slime-router was removed from slime"),
        (["--num-layers", "36"], "--num-layers: without a GPU the model"),
        (["stray"], "'stray' belongs to no flag"),
        (["--lr", "1", "2"], "'2' belongs to no flag"),
        (["--lr", "fast"], "--lr: invalid float value"),
        (["--apply-chat-template-kwargs", "[]"], "-kwargs: [] is not a JSON object"),
        (["--apply-chat-template-kwargs", "{"], "-kwargs: { is not a JSON object"),
    ],
)
def test_refused_by_name(words, said):
    assert said in refusal(*words)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--global-batch-size", "3"], "--global-batch-size 3 does not divide 8 answers"),
        (["--actor-num-gpus-per-node", "3", "--global-batch-size", "8"], "multiple of 3"),
        (
            ["--tensor-model-parallel-size", "2"],
            "--tensor-model-parallel-size 2 does not divide the 1 training processes",
        ),
        (["--n-samples-per-prompt", "1"], "a group of one has no advantage"),
        (["--rollout-temperature", "0"], "--rollout-temperature 0"),
        (["--over-sampling-batch-size", "2"], "--over-sampling-batch-size 2 is below"),
        (
            ["--num-steps-per-rollout", "2"],
            "--num-steps-per-rollout 2 x --global-batch-size 8 is not 8",
        ),
        (["--use-kl-loss"], "--ref-load"),
        (
            ["--advantage-estimator", "gspo"],
            "--advantage-estimator gspo: the trainer without a GPU takes only grpo",
        ),
        (["--hidden-dropout", "0.1"], "--hidden-dropout 0.1"),
        (["--rollout-top-p", "0.9"], "--rollout-top-p 0.9"),
        (["--eval-interval", "5"], "--eval-interval needs data"),
        (["--eval-prompt-data", "lonely"], "pairs"),
        (["--use-dynamic-batch-size"], "--max-tokens-per-gpu"),
        (["--lr-warmup-iters", "9"], "9 optimizer steps of warm-up are not below the run's 3;"),
        (["--lr-warmup-fraction", "1"], "--lr-warmup-fraction: 3 optimizer steps"),
    ],
)
def test_flags_at_odds(words, said):
    assert said in refusal(*words)


@pytest.mark.parametrize(
    "flag", ["--num-rollout", "--save", "--hf-checkpoint", "--custom-rm-path", "--rollout-num-gpus"]
)
def test_missing(flag):
    position = FLAGS.index(flag)
    with pytest.raises(UserError, match=flag):
        flags.parse(FLAGS[:position] + FLAGS[position + 2 :])


def test_grader_settings_reach_the_hooks(tmp_path):
    path = tmp_path / "grader.yaml"
    path.write_text("grader_mode: direct\n")
    assert make_args("--custom-config-path", str(path)).grader_mode == "direct"
    path.write_text("grader_mood: direct\n")
    assert "grader_mood; did you mean grader_mode" in refusal("--custom-config-path", str(path))
    path.write_text("lr: 1\n")
    assert "lr" in refusal("--custom-config-path", str(path))
    assert "absent.yaml" in refusal("--custom-config-path", str(tmp_path / "absent.yaml"))


def test_eval_config_follows_slimes_schema(tmp_path, monkeypatch):
    path = tmp_path / "eval.yaml"
    text = "eval:\n  defaults:\n    temperature: 0.5\n  datasets:\n"
    text += "    - name: a\n      path: ${oc.env:EVAL_DATA_PATH,rows.jsonl}\n"
    path.write_text(text)
    (dataset,) = make_args("--eval-config", str(path), "--eval-interval", "2").eval_datasets
    assert (dataset.name, dataset.path) == ("a", "rows.jsonl")
    assert (dataset.temperature, dataset.max_response_len) == (0.5, 16)
    monkeypatch.setenv("EVAL_DATA_PATH", "other.jsonl")
    assert make_args("--eval-config", str(path)).eval_datasets[0].path == "other.jsonl"
    path.write_text(text + "      tempratur: 1\n")
    assert "tempratur" in refusal("--eval-config", str(path))


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("eval:\n", "no data sets under eval.datasets"),
        ("- a\n", "no data sets under eval.datasets"),
        (
            "eval: {datasets: {a: rows.jsonl, b: {path: rows.jsonl}}}\n",
            "no data sets under eval.datasets",
        ),
        (
            "eval: {datasets: [{name: a, path: rows.jsonl}], defaults: 0.5}\n",
            "eval.defaults must hold",
        ),
        ("eval: {\n", "broken YAML"),
    ],
)
def test_an_eval_config_of_another_form_is_one_line(tmp_path, text, complaint):
    (tmp_path / "eval.yaml").write_text(text)
    assert complaint in refusal("--eval-config", str(tmp_path / "eval.yaml"))


def test_the_tiny_run_gives_every_flag_of_the_recipe(tmp_path):
    """DRY_RUN prints the command argument by argument; the parser takes all of them."""
    script = 'DRY_RUN=1 SAVE_PATH="$1" bash run_qwen3_tiny.sh --lr 1e-3'
    save = str(tmp_path / "a b")
    call = ["bash", "-c", script, "x", save]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    command = shlex.split(done.stdout)
    assert command[1:3] == ["-m", "rubric_rl.cpu.train"] and save in command
    args = flags.parse(command[3:])
    assert args.lr == 1e-3 and args.eps_clip_high == 0.28 and args.lr_decay_style == "constant"
    assert args.custom_rm_path == "self_reward_rm.reward" and args.save == args.load == save


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_printed(word, capsys):
    with pytest.raises(SystemExit) as ended:
        flags.parse([*FLAGS, word])
    assert ended.value.code == 0 and "--rollout-batch-size" in capsys.readouterr().out
