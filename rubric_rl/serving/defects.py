"""What a reply without a readable verdict looks like, and what to change where most look so."""

# What a reply without a readable verdict looks like -> the likely cause, and what to change.
CURES = {
    "cut": "the replies are cut at grader_max_tokens: raise it, or set grader_thinking false",
    "blanks": (
        "the replies are filled with blanks up to grader_max_tokens, as JSON allows: set "
        "grader_json_schema false, or forbid blanks at the engine (SGLang: "
        "--constrained-json-disable-any-whitespace)"
    ),
    "empty": "the replies are empty: the model ends at once; try another grader_mode or model",
    "refusal": "the model refuses to grade: take another grader",
    "thoughts": (
        "the verdict stands in the model's thoughts alone: set grader_thinking true and raise "
        "grader_max_tokens, or switch the thoughts off at the endpoint"
    ),
    "open thoughts": (
        "the replies never close their thoughts: raise grader_max_tokens and set grader_thinking "
        "true, or switch the thoughts off at the endpoint"
    ),
    "tools": (
        "the model calls a tool in place of a reply: switch tools off at the endpoint, or use "
        "another grader"
    ),
    "other words": (
        "after the verdict's opening the model wants to say neither true nor false: "
        "use grader_mode explain with grader_verdict reply"
    ),
    "not continued": (
        "the endpoint refuses to read a reply again up to its verdict: lower grader_max_tokens, so "
        "that both fit into its context, or use grader_verdict reply"
    ),
    "no verdict": "the replies hold no verdict in JSON: use grader_mode direct, or another grader",
}
