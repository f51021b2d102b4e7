"""The shipped tiny checkpoint: a small real Qwen3 that grades well and answers so-so."""

import json
from dataclasses import asdict
from random import Random

import pytest
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from rubric_rl.common.tokenizer import ChatTokenizer
from rubric_rl.grading.prompt import grader_prompt, verdict_opening
from rubric_rl.tiny.measure_checkpoint import answer_figures, grading_figures, world_cases
from rubric_rl.tiny.oracle import ADVICE, CONDITIONS
from rubric_rl.tiny.warm_start import SCALES
from rubric_rl.tiny.world import rows

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def making(model_folder) -> dict:
    """What the checkpoint says of its making."""
    return json.loads((model_folder / "making.json").read_text())


class TestFiles:
    def test_are_a_small_real_qwen3(self, model_folder, model):
        assert isinstance(model, Qwen3ForCausalLM)
        assert 0.5e6 < model.num_parameters() < 2e6
        assert model.config.tie_word_embeddings
        assert model.config.max_position_embeddings >= 2048
        size = sum(file.stat().st_size for file in model_folder.iterdir())
        assert size <= 8 * MEGABYTE

    def test_say_how_they_were_made(self, making, model):
        """Under the module names of that day; flags, scale and steps are those of today."""
        module, _, flags = making["command"].removeprefix("python -m ").partition(" ")
        assert module == "rubric_rl.tiny.checkpoint"  # now rubric_rl.tiny.make_checkpoint
        assert flags == "--out DIR --seed 0 --scale shipped"
        scale = SCALES["shipped"]
        assert making["scale"] == json.loads(json.dumps(asdict(scale)))
        assert making["steps"] == scale.answering_steps + scale.short_steps + scale.full_steps
        assert making["parameters"] == model.num_parameters()

    def test_the_grader_prompt_fits_into_the_context(self, model, encode):
        row = max(rows(held_out=True), key=lambda row: len(row.messages))
        conversation = list(row.messages)
        answer = "word " * 64
        criterion = row.rubric[0]
        content = grader_prompt("explain", conversation, answer, [criterion])
        assert len(encode(content)) < 512 < model.config.max_position_embeddings


class TestTokenizer:
    def test_has_qwen_s_control_tokens(self, tokenizer, model, encode):
        for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"):
            assert len(encode(token)) == 1
        assert tokenizer.eos_token == "<|im_end|>"
        assert model.config.eos_token_id == tokenizer.eos_token_id
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert len(tokenizer) <= model.config.vocab_size

    def test_has_one_token_for_each_verdict(self, encode):
        opening = encode(verdict_opening())
        for verdict in (" true", " false"):
            (token,) = encode(verdict)
            reply = encode(verdict_opening() + verdict + "}")
            assert reply[: len(opening) + 1] == [*opening, token]

    def test_has_one_token_for_each_key_word(self, encode):
        for word in [*ADVICE, *CONDITIONS]:
            assert len(encode(f" {word}")) == 1

    def test_loses_no_text_and_is_read_alike_by_both_libraries(
        self, model_folder, tokenizer, encode
    ):
        text = "Größe 漢字 🙂\n\t{}<think>\nx\n</think>\n"
        assert tokenizer.decode(encode(text)) == text
        plain = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
        assert plain.encode(text, add_special_tokens=False).ids == encode(text)


class TestChatTokenizer:
    USER = {"role": "user", "content": "Hi"}  # noqa: RUF012
    TURN = "<|im_start|>user\nHi<|im_end|>\n"
    OPENED = TURN + "<|im_start|>assistant\n"
    NO_THOUGHTS = "<think>\n\n</think>\n\n"

    @pytest.fixture
    def render(self, tokenizer):
        def render(*messages, **options) -> str:
            return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)

        return render

    def test_thinks_unless_told_otherwise(self, render):
        assert render(self.USER, add_generation_prompt=True) == self.OPENED
        thinking = render(self.USER, add_generation_prompt=True, enable_thinking=True)
        assert thinking == self.OPENED

    def test_opens_with_empty_thoughts_when_thinking_is_off(self, render, model_folder):
        silent = render(self.USER, add_generation_prompt=True, enable_thinking=False)
        assert silent == self.OPENED + self.NO_THOUGHTS
        assert silent == ChatTokenizer(model_folder).render([self.USER], thinking=False)

    def test_keeps_the_thoughts_of_the_last_turn_alone(self, render):
        thoughts = "<think>\nhm\n</think>\n\n"
        reply = {"role": "assistant", "content": thoughts + "Yes."}
        assert render(self.USER, reply) == self.OPENED + thoughts + "Yes.<|im_end|>\n"
        later = render(self.USER, reply, self.USER)
        assert later == self.OPENED + "Yes.<|im_end|>\n" + self.TURN

    def test_goes_on_with_a_reply_that_is_begun(self, render):
        begun = {"role": "assistant", "content": verdict_opening()}
        prompt = render(self.USER, begun, continue_final_message=True)
        assert prompt == self.OPENED + self.NO_THOUGHTS + verdict_opening()


@pytest.mark.slow
class TestSkill:
    @pytest.mark.parametrize("answers", ["ordinary", "hostile"])
    def test_is_what_making_json_says(self, policy, making, answers):
        """Measured again, as far as nothing is drawn by torch: that differs between machines."""
        chosen = Random(1234).sample(rows(held_out=True), SCALES["shipped"].sample)
        cases = world_cases(chosen, seed=1234)[answers]
        said = making["measured"][f"grading direct {answers}"]
        found = grading_figures(policy, "direct", cases)
        assert found["verdicts"] == said["verdicts"]
        assert found == pytest.approx(said, abs=0.01)

    @pytest.mark.parametrize("mode", ["explain", "direct"])
    def test_grades_held_out_answers_well(self, policy, mode):
        chosen = Random(7).sample(rows(held_out=True), 30)
        _, own = answer_figures(policy, chosen, per_row=1, temperature=1.0, seed=7)
        cases = own + world_cases(chosen, seed=7)["ordinary"]
        figures = grading_figures(policy, mode, cases)
        assert figures["verdicts"] > 200
        assert figures["accuracy"] >= 0.95, figures

    def test_answers_held_out_patients_so_that_grpo_has_something_to_do(self, policy):
        chosen = Random(7).sample(rows(held_out=True), 40)
        figures, _ = answer_figures(policy, chosen, per_row=8, temperature=1.0, seed=7)
        assert 0.15 <= figures["true_score"] <= 0.45, figures
        assert figures["groups_with_variance"] >= 0.9, figures
        assert figures["truncated"] <= 0.1, figures
