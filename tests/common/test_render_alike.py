"""Conversations that are rendered by one run of a template have the texts that each has alone."""

import itertools
import json

import pytest
from doubles.engine import TEMPLATE, chat_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from rubric_rl.common.errors import UserError
from rubric_rl.common.render_alike import AlikeTemplate
from rubric_rl.common.tokenizer import ChatTokenizer

# In the manner of published templates, as far as they treat a conversation of plain texts.
QWEN3 = """\
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and
        not(message.content.startswith('<tool_response>') and
            message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}
    {%- else %}{%- set content = '' %}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
LLAMA3 = """\
{% for message in messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'\
 + message['content'] | trim + '<|eot_id|>' %}\
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\
{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"""
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- if loop.last and system_message is defined %}
        {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
    {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
{%- endfor %}"""
GEMMA = """\
{{ bos_token }}{%- for message in messages -%}
{{ '<start_of_turn>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}{{ message['content'] | trim }}
{%- elif message['content'] is iterable -%}{{ raise_exception('parts') }}{%- endif -%}
{{ '<end_of_turn>\\n' }}{%- endfor -%}{{ '<start_of_turn>model\\n' }}"""
DEEPSEEK = """\
{% set ns = namespace(system_prompt='') %}{%- for message in messages %}\
{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}\
{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}\
{%- for message in messages %}{% set content = message['content'] %}\
{%- if message['role'] == 'user' %}{{'<|User|>' + content }}{%- endif %}\
{%- if message['role'] == 'assistant' and '</think>' in content %}\
{% set content = content.split('</think>')[-1] %}{%- endif %}{%- endfor -%}\
{{'<|Assistant|><think>\\n'}}"""
MACRO = """\
{%- macro shown(content) %}{% if content is string %}{{ content }}{% endif %}{% endmacro %}
{%- for m in messages %}{% set said = shown(m.content)|trim %}\
{{ '<|' ~ m.role ~ '|>' ~ said ~ '\\n' }}{% endfor %}<|assistant|>"""
PUBLISHED = {
    "ours": TEMPLATE,
    "Qwen 3": QWEN3,
    "Llama 3": LLAMA3,
    "Mistral": MISTRAL,
    "Gemma 3": GEMMA,
    "DeepSeek R1": DEEPSEEK,
    "macros": MACRO,
}
# What a template may do besides, each as a value written or as a condition.
VALUES = (
    "c",
    "c|trim",
    "c|upper",
    "c|length",
    "c|replace('a', 'bb')",
    "c|int(7)",
    "c|float",
    "c|tojson",
    "c|e",
    "c|list|last",
    "c|first",
    "c|wordcount",
    "c|indent",
    "c|string",
    "c|default('none')",
    "c|format",
    "'%s!'|format(c)",
    "'%s!' % c",
    "c * 2",
    "[c, 'x']|join('-')",
    "[c, 'x']|sort|first",
    "messages|tojson",
    "messages|map(attribute='content')|join",
    "messages|selectattr('content', 'equalto', 'a')|list|length",
    "{'a': 1}[c]",
    "{c: 1}|length",
    "['p', 'q'][c|length]",
    "c[0]",
    "c[:3] + '.'",
    "c[9]",
    "c[-1:]",
    "c.format(1)",
    "c.split('a')[0]",
    "c.split('</think>')|last",
    "c.split()|length",
    "c.strip('a') ~ c.lower()",
    "c.find('a')",
    "c.nothing",
    "c.removeprefix(c)",
    "c.encode()",
    "'a'.join(c)",
    "'aXb'.replace('X', c)",
    "dict(a=c).a",
    "namespace(a=c).a",
    "strftime_now(c)",
    "range(c|length)|list|length",
    "raise_exception(c)",
)
CONDITIONS = (
    "c",
    "not c",
    "c == 'a'",
    "c != 'a b'",
    "'a' == c",
    "c in ('a', 'b')",
    "c in 'abc'",
    "'a' in c",
    "'</think>' in c",
    "c < 'b'",
    "c is string",
    "c is iterable",
    "c is sequence",
    "c is mapping",
    "c is number",
    "c is lower",
    "c is in(['a'])",
    "c is sameas(1)",
    "c is callable",
    "c is defined and c is not none",
    "c|length > 3",
    "c.startswith('a')",
    "c.endswith(' ')",
    "c.isdigit()",
    "c ~ 'x' == 'ax'",
    "shown(c) == 'a'",
    "block == 'a'",
    "'a' in shown(c)",
)
BEFORE = (
    "{% macro shown(x) %}{{ x }}{% endmacro %}{% set c = messages[-1].content %}"
    "{% set block %}{{ c }}{% endset %}"
)
WRITTEN = {
    "alone": "{{ VALUE }}",
    "between": "x{{ VALUE }}y",
    "by a macro": "{{ shown(VALUE)|trim }}",
    "in a filter": "{% filter upper %}{{ VALUE }}{% endfilter %}",
    "as a generation": "{% generation %}{{ VALUE }}{% endgeneration %}",
    "in a set": "{% set s %}{{ VALUE }}{% endset %}{{ s|length }}{{ s }}",
}
CHOSEN = {
    "where": "{% if CONDITION %}yes {{ c }}{% else %}no {{ c }}{% endif %}",
    "chosen": "{{ c if CONDITION else 'x' }}{{ (CONDITION) or c }}",
}
TEXTS = ("a", " a b ", "7", "", "a</think>b", "{0.__class__}")
LISTS: list[list[str]] = [list(pair) for pair in itertools.combinations_with_replacement(TEXTS, 2)]
LISTS += [["a b", "a", "a"], ["A", "a", "\u00df"]]


def conversations(texts: list[str], system: str = "") -> list[list[dict]]:
    before = [{"role": "system", "content": system}] if system else []
    return [[*before, {"role": "user", "content": text}] for text in texts]


def alone(tokenizer: ChatTokenizer, asked: list[list[dict]], thinking: bool = False) -> list[str]:
    return [tokenizer.render(messages, thinking) for messages in asked]


def with_template(folder, template: str) -> ChatTokenizer:
    path = folder / "tokenizer_config.json"
    if not path.exists():
        chat_model(folder)
    path.write_text(json.dumps({"chat_template": template, "bos_token": "<s>"}))
    return ChatTokenizer(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@pytest.mark.parametrize("name", PUBLISHED)
@given(
    texts=st.lists(st.sampled_from(TEXTS) | st.text("aB7 \n<{", max_size=9), min_size=1),
    system=st.sampled_from(("", "s")),
)
def test_published_templates_write_what_they_write_of_each(tmp_path, name, texts, system):
    tokenizer = with_template(tmp_path, PUBLISHED[name])
    asked = conversations(texts, system)
    for thinking in (True, False):
        assert tokenizer.render_alike(asked, thinking) == alone(tokenizer, asked, thinking)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_run_once_for_all_criteria(tmp_path, monkeypatch, name):
    tokenizer = with_template(tmp_path, PUBLISHED[name])
    rendered = []
    render = ChatTokenizer.render
    monkeypatch.setattr(
        ChatTokenizer, "render", lambda self, *given: rendered.append(1) or render(self, *given)
    )
    texts = [f"Grade it.\n\nCriterion: [5] It says {word} " for word in ("a", "bb", "</think>")]
    assert len(tokenizer.render_alike(conversations(texts), False)) == 3
    assert rendered == [1], "to see that transformers does the same"


def by_one_run(template: str) -> list[bool]:
    """Of each list of texts, whether one run rendered it: never otherwise than each alone."""
    options = {"chat_template": template, "add_generation_prompt": True}
    together = AlikeTemplate(render_jinja_template, options)

    def alone(messages: list[dict]) -> str | None:
        try:
            return render_jinja_template(conversations=[messages], **options)[0][0]
        except Exception:  # a template may raise anything
            return None

    each = {text: alone(conversations([text])[0]) for text in {*itertools.chain(*LISTS)}}
    done = []
    for texts in LISTS:
        rendered = together.render(conversations(texts), {})
        assert rendered in (None, [each[text] for text in texts]), (template, texts)
        done.append(rendered is not None)
    return done


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
def test_whatever_a_template_makes_of_a_text_it_makes_of_each(written):
    by_values = [by_one_run(BEFORE + written.replace("VALUE", value)) for value in VALUES]
    assert sum(map(any, by_values)) > 10, "else nothing was seen"


@pytest.mark.parametrize("written", CHOSEN.values(), ids=CHOSEN.keys())
def test_whatever_a_template_asks_of_a_text_it_asks_of_each(written):
    asked = [by_one_run(BEFORE + written.replace("CONDITION", one)) for one in CONDITIONS]
    assert sum(map(any, asked)) > 10, "else nothing was seen"


@pytest.mark.parametrize("place", ["the role", "a turn before", "a further field"])
def test_conversations_that_differ_elsewhere_are_rendered_one_by_one(tmp_path, place):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.name }}{% endfor %}"
    tokenizer = with_template(tmp_path, template)
    asked = [*conversations(["a"], "s"), *conversations(["b"], "s")]
    if place == "the role":
        asked[1][1]["role"] = "tool"
    elif place == "a turn before":
        asked[1][0]["content"] = "t"
    else:
        asked[1][1]["name"] = "n"
    assert tokenizer.render_alike(asked, False) == alone(tokenizer, asked)


def test_a_run_that_is_not_what_transformers_does_is_not_believed(tmp_path, monkeypatch):
    tokenizer = with_template(tmp_path, TEMPLATE)
    asked = conversations(["a", "b"])
    monkeypatch.setattr(AlikeTemplate, "render", lambda *_: ["x", "y"])
    assert tokenizer.render_alike(asked, False) == alone(tokenizer, asked)


def test_a_conversation_that_a_template_refuses_is_refused_with_its_reason(tmp_path):
    tokenizer = with_template(
        tmp_path,
        "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}"
        "{{ messages[0].content }}",
    )
    with pytest.raises(UserError, match="no b"):
        tokenizer.render_alike(conversations(["a", "b"]), False)
