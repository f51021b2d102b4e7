"""The parts of a reply in every form that the services of the field are seen to send."""

import pytest

from rubric_rl.serving.payload import count_of, error_in, is_complete, kind_of_refusal, text_of
from rubric_rl.serving.question import Refused, Retryable, TooLong, Unavailable


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "stop",
            "eos_token",
            "stop_sequence",
            "end_turn",
            "STOP",
            "eos",
            "tool_calls",
            "",
            None,
            5,
        ),
        *("content_block_stop", "end_of_block", "stop_policy", "insensitive", "no_error"),
        *({"type": "stop"}, {}, ["stop"]),
    ],
)
def test_every_other_ending_is_a_normal_one(reason):
    assert is_complete(reason, "something")


@pytest.mark.parametrize(
    "reason", ["stop", "eos_token", "end_turn", "STOP", "tool_calls", "", None]
)
def test_so_may_a_model_end_that_says_nothing(reason):
    assert is_complete(reason, " ")


@pytest.mark.parametrize("reason", ["OTHER", "language", "malformed_function_call"])
def test_any_other_ending_of_nothing_is_no_reply_and_named(reason):
    assert is_complete(reason, "something")
    with pytest.raises(Retryable, match=f"empty reply .*{reason.lower()}"):
        is_complete(reason, " ")


@pytest.mark.parametrize(
    "reason",
    [
        *("length", "max_tokens", "MAX_TOKENS", "model_length", "model_context_window_exceeded"),
        *("max_new_tokens", "FINISH_REASON_MAX_TOKENS", "max_token", "token_limit", "length_limit"),
        *("MaxTokens", "incomplete"),
        {"type": "length"},
    ],
)
def test_a_reply_at_its_limit_is_cut(reason):
    assert not is_complete(reason, "")


@pytest.mark.parametrize(
    "reason",
    [
        "abort",
        "error",
        "cancelled",
        "network_error",
        "timeout",
        "insufficient_system_resource",
        "ERROR_LIMIT",
        {"type": "abort"},
    ],
)
def test_what_the_engine_broke_off_is_asked_again(reason):
    with pytest.raises(Retryable, match="ended by the engine"):
        is_complete(reason, "")


@pytest.mark.parametrize("said", ["", ": Abort in waiting queue"])
def test_the_reason_that_the_engine_gives_is_told(said):
    ending = {"type": "abort", "message": said[2:] or None}
    with pytest.raises(Retryable) as broken:
        is_complete(ending, "")
    assert str(broken.value) == f"ended by the engine (abort{said})"


@pytest.mark.parametrize(
    "reason",
    [
        "content_filter",
        "content_filtered",
        "SAFETY",
        "IMAGE_SAFETY",
        "SPII",
        "sensitive",
        "refusal",
        "guardrail_intervened",
        *("policy_violation", "content_policy"),
        *("block", "blocked", "BLOCKLIST", "policy"),
    ],
)
def test_what_a_filter_withholds_is_not(reason):
    with pytest.raises(Unavailable, match=r"filter withholds the reply"):
        is_complete(reason, "")


@pytest.mark.parametrize(
    "content, text",
    [
        ("x", "x"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "output_text", "text": "a"}, "b", {"text": "c"}], "abc"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}], ""),
        ([{"type": "reasoning", "text": "no"}, {"type": "text", "text": "yes"}], "yes"),
        ([{"type": "text", "text": None}, {"type": "image_url"}, 5], ""),
    ],
)
def test_content_may_be_parts_of_which_thoughts_are_none(content, text):
    assert text_of(content) == text


@pytest.mark.parametrize("content", [5, {"text": "x"}, True])
def test_content_of_another_type_is_none(content):
    with pytest.raises(TypeError):
        text_of(content)


@pytest.mark.parametrize(
    "written, count",
    [(7, 7), (7.0, 7), ("7", 7), ("7.0", 7), (None, 0), ("many", 0), ([], 0), (-1, 0), (1e999, 0)],
)
def test_a_number_of_tokens_is_read_in_any_form(written, count):
    assert count_of(written) == count
    assert count_of(float("nan")) == 0


@pytest.mark.parametrize(
    "payload, message, again",
    [
        ({"error": "busy"}, "busy", True),
        ({"error": {"message": "busy", "code": 503}}, "busy (503)", True),
        ({"error": {"message": "slow down", "code": "429"}}, "slow down (429)", True),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, "slow down", True),
        ({"error": {"message": "no", "code": 401}}, "no (401)", False),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, "no", False),
        ({"error": {"message": "no credit", "code": "insufficient_quota"}}, "no credit", False),
        ({"error": {"message": "no", "status": "NOT_FOUND"}}, "no (NOT_FOUND)", False),
        ({"object": "error", "message": "too long", "code": 400}, "too long (400)", False),
        ({"detail": "bad field"}, "bad field", True),
        ({"detail": [{"loc": ["body", "seed"], "msg": "extra"}]}, "seed", True),
        ({"errors": ["no"]}, "no", True),
        ({"message": "Unauthorized"}, "Unauthorized", True),
        ({"code": 1113, "msg": "no credit"}, "no credit (1113)", True),
        ({"errorMessage": "timed out", "errorType": "x"}, "timed out", True),
        ({"status": "error", "reason": "x"}, '"reason": "x"', True),
        ([{"error": {"code": 400, "message": "bad key"}}], "bad key (400)", False),
        ({"error": {}, "detail": "no"}, "no", True),
        ({"error": {"code": 0, "message": ""}, "detail": "no"}, "no", True),
        ("overloaded", "overloaded", True),
        ({"choices": [], "detail": "no such model"}, "no such model", True),
        ({"choices": None, "message": "overloaded", "code": 503}, "overloaded (503)", True),
        (
            {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "login fail"}},
            "login fail (1004)",
            True,
        ),
        ({"status": "error", "text": "quota exceeded"}, "quota exceeded (error)", True),
        ({"choices": [], "usage": {}}, '"choices": []', True),
        ({"choices": [], "code": 200, "msg": "success"}, "success (200)", True),
        ({"code": "InvalidApiKey", "message": "no"}, "no (InvalidApiKey)", False),
        ({"error": {"message": "no", "type": "NotFoundError"}}, "no", False),
        ({"error": {"message": "no", "code": "content_filter"}}, "no", False),
    ],
)
def test_an_error_is_found_in_every_form_and_its_code_decides_on_another_try(
    payload, message, again
):
    found = error_in(payload)
    assert found is not None
    assert message in found[0]
    assert found[1] is again


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "",
        {"choices": [{}], "error": None},
        {"choices": [{}], "detail": "x", "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"text": "", "meta_info": {}},
        [{"text": ""}],
        {},
    ],
)
def test_a_reply_is_no_error(payload):
    assert error_in(payload) is None


@pytest.mark.parametrize(
    "nothing",
    [
        *({"code": 0, "message": ""}, {"code": None, "message": None}, {"code": "0"}),
        *({"code": 0, "message": "success"}, {"code": 200, "msg": "OK"}),
        *({"code": 0, "details": []}, "null", " ", [], False),
    ],
)
def test_a_reply_beside_an_error_that_says_nothing_is_none_either(nothing):
    assert error_in({"choices": [{}], "error": nothing}) is None
    assert error_in({"text": "", "meta_info": {}, "error": nothing}) is None
    assert error_in({"choices": [{}], "error": {"code": 0, "message": "busy"}}) is not None


@pytest.mark.parametrize(
    "message",
    [
        "The input (9 tokens) is longer than the model's context length (8 tokens).",
        "Requested token count exceeds the model's maximum context length of 8 tokens.",
        "Input length (9 tokens) exceeds the maximum allowed length (8 tokens).",
        "This model's maximum context length is 8 tokens. However, you requested 9 tokens",
        '{"code": "context_length_exceeded"}',
        "the request exceeds the available context size, try increasing it",
        "prompt is too long: 9 tokens > 8 maximum",
        "Your input exceeds the context window of this model.",
        "Context length exceeded",
        "The prompt (total length 9) is too long to fit into the model (context length 8)",
    ],
)
def test_a_question_that_is_too_long_is_told_from_other_refusals(message):
    assert kind_of_refusal(400, message) is TooLong
    assert kind_of_refusal(403, message) is Unavailable


@pytest.mark.parametrize(
    "message",
    [
        "filtered by the content management policy",
        "bad field",
        "",
        "request waited too long in the queue, try again",
        "upstream took too long to respond",
        "Failed to allocate context window: KV cache out of memory",
        "Request URI too long",
    ],
)
def test_any_other_refusal_is_none_of_length(message):
    assert kind_of_refusal(400, message) is Refused
