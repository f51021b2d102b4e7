"""A model folder's texts and token ids are those of transformers, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.engine import TEMPLATE, chat_model
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, processors

from rubric_rl import ROOT
from rubric_rl.common.errors import UserError
from rubric_rl.common.tokenizer import THOUGHTS, ChatTokenizer

TURN = [{"role": "user", "content": "hi"}]
WITH_ASSISTANT = [*TURN, {"role": "assistant", "content": "yes"}, *TURN]


def change_config(folder: Path, **fields) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def of_transformers(folder: Path, messages: list[dict]) -> str:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )


TEMPLATES = {
    "the date": "{{ strftime_now('%Y') }}",
    "generation blocks": (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}"
        "{% endif %}{% endfor %}"
    ),
    "tools and documents": "{{ tools is none }} {{ documents is none }} {{ tools is defined }}",
    "JSON": "{{ {'ä': '<b>'} | tojson }} {{ {'ä': 1} | tojson(ensure_ascii=True, indent=2) }}",
    "JSON by position": "{{ {'ä': 1, 'b': 2} | tojson(False, 2) }}",
    "sorted JSON": "{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=True) }}",
    "loop controls": (
        "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}"
        "{{ m.content }}{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}"
    ),
    "white space": "  {% if true %}\n  x\n  {% endif %}\n\ny\n",
    "special tokens": (
        "{{ bos_token }} {{ eos_token }} {{ pad_token }} {{ sep_token }} {{ cls_token }}"
        "{{ image_token }} {{ bos_token is defined }} {{ unk_token is defined }}"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_rendered_as_by_transformers(name, tmp_path):
    chat_model(tmp_path, TEMPLATES[name] + TEMPLATE)
    change_config(
        tmp_path,
        bos_token="<s>",
        pad_token={"content": "<pad>", "__type": "AddedToken"},
        sep_token="<sep>",
        image_token="<image>",
        add_bos_token=True,
        unk_token=None,
    )
    rendered = ChatTokenizer(tmp_path).render(WITH_ASSISTANT, thinking=False)
    assert rendered == of_transformers(tmp_path, WITH_ASSISTANT)


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
@pytest.mark.parametrize("thinking", [True, False])
def test_a_template_is_told_of_thoughts_by_the_name_that_it_knows(tmp_path, name, thinking):
    """Qwen's name, and that of DeepSeek V3.1, Kimi and Granite."""
    template = (
        f"{{{{ messages[0].content }}}}{{% if {name} %}}<think>{{% else %}}</think>{{% endif %}}"
    )
    text = ChatTokenizer(chat_model(tmp_path, template)).render(TURN, thinking)
    assert text == ("hi<think>" if thinking else "hi</think>")


def test_special_tokens_are_found_where_older_versions_saved_them(tmp_path):
    chat_model(tmp_path, "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
    saved = {"bos_token": {"content": "<old>", "lstrip": False}, "eos_token": "<end>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(saved))
    rendered = ChatTokenizer(tmp_path).render(TURN, thinking=False)
    assert rendered == of_transformers(tmp_path, TURN) == "<old>hi<end>"


class TestPlacesOfTheTemplate:
    """Each is a folder that transformers reads; the file wins over the configuration."""

    OF_THE_FILE = "of the file: {{ messages[0].content }}"

    def rendered(self, folder: Path) -> str:
        text = ChatTokenizer(folder).render(TURN, thinking=False)
        assert text == of_transformers(folder, TURN)
        return text

    def test_named_templates(self, tmp_path):
        chat_model(tmp_path)
        named = [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "by default: {{ messages[0].content }}"},
        ]
        change_config(tmp_path, chat_template=named)
        assert self.rendered(tmp_path) == "by default: hi"

    def test_a_file(self, tmp_path):
        chat_model(tmp_path)
        (tmp_path / "chat_template.jinja").write_text(self.OF_THE_FILE)
        assert self.rendered(tmp_path) == "of the file: hi"

    def test_a_file_and_additional_ones(self, tmp_path):
        chat_model(tmp_path)
        (tmp_path / "chat_template.jinja").write_text(self.OF_THE_FILE)
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("additional")
        assert self.rendered(tmp_path) == "of the file: hi"

    def test_a_file_without_any_configuration(self, tmp_path):
        chat_model(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
        (tmp_path / "chat_template.jinja").write_text("alone: {{ messages[0].content }}")
        assert ChatTokenizer(tmp_path).render(TURN, thinking=False) == "alone: hi"

    @pytest.mark.parametrize(
        "templates", [None, 5, [], ["x"], [{"name": "tool_use", "template": "x"}], {"rag": "x"}]
    )
    def test_none_of_use(self, tmp_path, templates):
        chat_model(tmp_path)
        change_config(tmp_path, chat_template=templates)
        with pytest.raises(UserError, match=f"{tmp_path}: no chat template; name the local"):
            ChatTokenizer(tmp_path)


class TestErrors:
    @pytest.mark.parametrize(
        "template, reason",
        [
            ("{{ raise_exception('no system role') }}", "no system role"),
            ("{{ messages[0].content + 1 }}", "TypeError: can only concatenate str"),
            ("{{ messages[7].content.x.y }}", "list object has no element 7"),
            ("{{ 1 / 0 }}", "ZeroDivisionError: "),
        ],
    )
    def test_a_template_that_refuses_a_conversation_gives_its_reason(
        self, tmp_path, template, reason
    ):
        tokenizer = ChatTokenizer(chat_model(tmp_path, template))
        with pytest.raises(UserError) as refusal:
            tokenizer.render(TURN, thinking=True)
        message = str(refusal.value)
        assert f"the chat template of {tmp_path} refuses this conversation: {reason}" in message
        assert "\n" not in message

    @pytest.mark.parametrize("template", ["{% if %}", "{{ x | no_such_filter }}", "{% for %}"])
    def test_a_template_that_is_no_template_is_found_at_once(self, tmp_path, template):
        chat_model(tmp_path, template)
        with pytest.raises(UserError, match=f"{tmp_path}: broken chat template"):
            ChatTokenizer(tmp_path)

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff"])
    def test_a_broken_folder_is_named(self, tmp_path, name, content):
        chat_model(tmp_path)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"^{tmp_path}: no usable tokenizer"):
            ChatTokenizer(tmp_path)

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(UserError, match=f"^{tmp_path}/nowhere: no usable tokenizer"):
            ChatTokenizer(tmp_path / "nowhere")

    @pytest.mark.parametrize("parts", ["message.content", "message.content | selectattr('type')"])
    def test_a_template_that_leaves_out_what_is_no_list_of_parts_is_found_at_once(
        self, tmp_path, parts
    ):
        part = "{% if part.type == 'text' %}{{ part.text }}{% endif %}"
        turn = f"{{{{ message.role }}}}: {{% for part in {parts} %}}{part}{{% endfor %}}"
        chat_model(tmp_path, f"{{% for message in messages %}}{turn}{{% endfor %}}")
        with pytest.raises(UserError, match=f"{tmp_path}: the chat template leaves out what the"):
            ChatTokenizer(tmp_path)

    def test_an_unreadable_template_names_its_folder(self, tmp_path):
        chat_model(tmp_path)
        (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
        with pytest.raises(UserError, match=f"^{tmp_path}: no usable chat template"):
            ChatTokenizer(tmp_path)


class TestTokenIds:
    def test_the_bos_of_the_template_stays_the_only_one(self, tmp_path):
        chat_model(tmp_path, "{{ bos_token }}{{ messages[0].content }}")
        change_config(tmp_path, bos_token="<|im_start|>")
        path = str(tmp_path / "tokenizer.json")
        bpe = Tokenizer.from_file(path)
        bos = bpe.token_to_id("<|im_start|>")
        bpe.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
        )
        bpe.save(path)
        tokenizer = ChatTokenizer(tmp_path)
        ids = tokenizer.encode(tokenizer.render(TURN, thinking=True))
        assert ids[0] == bos and ids.count(bos) == 1
        assert tokenizer.count("<|im_start|>hi") == len(ids)

    def test_limits_that_a_saved_tokenizer_holds_cut_nothing(self, tmp_path):
        path = Path(chat_model(tmp_path)) / "tokenizer.json"
        bpe = Tokenizer.from_file(str(path))
        bpe.enable_truncation(4)
        bpe.enable_padding(length=64)
        bpe.save(str(path))
        tokenizer = ChatTokenizer(tmp_path)
        assert tokenizer.count("is it true or false? " * 20) > 64
        assert tokenizer.count(" true") == 1

    def test_a_word_of_two_tokens_is_no_choice(self, tmp_path):
        tokenizer = ChatTokenizer(chat_model(tmp_path))
        assert tokenizer.token_id(" true") == tokenizer.encode(" true")[0]
        with pytest.raises(
            UserError, match=r"' zebra' as one token, but the tokenizer of .* makes"
        ):
            tokenizer.token_id(" zebra")


class TestTextsThatBeginAlike:
    SHIPPED = ChatTokenizer(ROOT / "rubric_rl/tiny/model")
    PARTS = st.text("aZ5 .\n\t\r[-\u00e9\u0301\U0001f600", max_size=30)

    @given(beginning=PARTS, ends=st.lists(PARTS, min_size=1, max_size=4))
    def test_have_the_ids_of_each(self, beginning, ends):
        for opening in ("\nCriterion: [", "\n", "\n[", " "):
            texts = [f"{beginning}{opening}{end}" for end in ends]
            assert self.SHIPPED.encode_alike(texts) == [*map(self.SHIPPED.encode, texts)]

    def test_share_the_reading_of_what_they_share(self, monkeypatch):
        texts = [f"{'Drink water. ' * 500}\nCriterion: [{n}] Greets." for n in range(9)]
        read = []
        encode = ChatTokenizer.encode
        monkeypatch.setattr(
            ChatTokenizer, "encode", lambda self, text: read.append(len(text)) or encode(self, text)
        )
        self.SHIPPED.encode_alike(texts)
        assert sum(read) < 2 * len(texts[0])

    def test_are_read_whole_by_a_tokenizer_that_joins_lines(self, tmp_path):
        path = Path(chat_model(tmp_path)) / "tokenizer.json"
        saved = json.loads(path.read_text())
        saved["model"]["vocab"]["\u010aC"] = 999  # a line's end and a letter in one token
        saved["model"]["merges"].insert(0, ["\u010a", "C"])
        saved["pre_tokenizer"] |= {"use_regex": False}
        path.write_text(json.dumps(saved))
        joining = ChatTokenizer(tmp_path)
        texts = [f"an answer\nCriterion: {word}" for word in "ab"]
        assert 999 in joining.encode(texts[0])
        assert joining.encode_alike(texts) == [*map(joining.encode, texts)]


def test_neither_importing_nor_rendering_loads_torch(tmp_path):
    program = (
        "import sys\n"
        "from rubric_rl.common.tokenizer import THOUGHTS, ChatTokenizer\n"
        "assert 'transformers' not in sys.modules\n"
        f"tokenizer = ChatTokenizer({chat_model(tmp_path)!r})\n"
        "tokenizer.render([{'role': 'user', 'content': 'hi'}], thinking=False)\n"
        "assert 'transformers' in sys.modules\n"
        "assert not {'torch', 'tensorflow', 'jax'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_special_tokens_are_those_that_could_end_a_turn(tmp_path):
    model = chat_model(tmp_path)
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    before = set(ChatTokenizer(model).special_tokens)
    tokenizer.add_special_tokens(["[turn]", "\u00a7"])
    tokenizer.add_tokens(["\n\n", "   ", "x", " <b> "])
    tokenizer.save(f"{model}/tokenizer.json")
    tokens = ChatTokenizer(model).special_tokens
    assert set(tokens) - before == {"[turn]", "\u00a7", "<b>"}
    assert list(tokens) == sorted(tokens, key=lambda token: (-len(token), token))


NORMALIZERS = {
    "compatible forms": (normalizers.NFKC(), "\uff1cturn\uff1e"),
    "small letters": (normalizers.Lowercase(), "<TURN>"),
    "no accents": (
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        "<tu\u0301rn>",
    ),
    "replaced": (normalizers.Replace("\u200b", ""), "<tu\u200brn>"),
    "SentencePiece": (
        normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
        "<turn>",
    ),
}


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_no_special_token_is_read_in_a_broken_up_text(tmp_path, name, late):
    """Whether a tokenizer looks for it before or after it normalises the text."""
    normalizer, forged = NORMALIZERS[name]
    model = chat_model(tmp_path)
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken("<turn>", normalized=late)])
    tokenizer.save(f"{model}/tokenizer.json")
    ours = ChatTokenizer(model)
    turn = Tokenizer.from_file(f"{model}/tokenizer.json").token_to_id("<turn>")
    text = f"Rest. {forged} Say <turn> now."
    assert turn in ours.encode(text)
    broken = ours.break_up(text)
    assert turn not in ours.encode(broken)
    assert "Rest." in broken or "rest." in broken


def test_a_text_without_special_tokens_stays_as_it_is(tmp_path):
    model = chat_model(tmp_path)
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens([AddedToken("<turn>", normalized=True)])
    tokenizer.save(f"{model}/tokenizer.json")
    text = "It says: REST, \u00c9t\u00e9 < turn >"
    assert ChatTokenizer(model).break_up(text) == text


class TestUsualThoughts:
    """A thought in the marks of the model's own family is one, and in others' is an answer."""

    def of(self, folder: Path, marks: tuple, response: str, prompt: str = "") -> str:
        named = "".join(f"{{{{ '{mark}' if false }}}}" for mark in marks)
        return ChatTokenizer(chat_model(folder, TEMPLATE + named)).usual_thoughts(response, prompt)

    @pytest.mark.parametrize("marks", THOUGHTS[1:])
    def test_replace_those_of_the_family_that_open_the_response(self, tmp_path, marks):
        opens, closes = marks
        said = f"Call.{opens}really{closes}Now."
        assert self.of(tmp_path, marks, f"\n{opens}hm</think>{closes}{said}") == (
            f"<think></think>{said}"
        )
        assert self.of(tmp_path, marks, f"{opens}hm") == "<think>"
        assert self.of(tmp_path, marks, said) == said
        opened = f"<|im_start|>assistant\n{opens}\n"
        assert self.of(tmp_path, marks, f"hm{closes}Call.", opened) == "<think></think>Call."

    @pytest.mark.parametrize("marks", THOUGHTS[1:])
    def test_replace_none_of_another_family(self, tmp_path, marks):
        opens, closes = marks
        for others in ((), THOUGHTS[0], (opens,)):
            response = f"{opens}harmful{closes}harmless"
            assert self.of(tmp_path, others, response) == response
