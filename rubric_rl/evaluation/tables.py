"""Results as plain text (stage 6, evaluation)."""

from collections.abc import Mapping

from rubric_rl.evaluation.summary import OVERALL, Summary, paired


def summary_lines(result: Mapping) -> list[str]:
    """The reference's figures, our own beside them, and what became of every answer and criterion."""
    return _reference_lines(result) + _beside_lines(result) + account_lines(result)


def _reference_lines(result: Mapping) -> list[str]:
    reference = result["reference"]
    lines = ["Rubric score, HealthBench's as in simple-evals (clipped mean, bootstrap std, n)"]
    if not reference:
        return lines + ["  none: no answer was graded"]
    rank = {"theme": 0, "axis": 1, "level": 2}
    metrics = (name.removesuffix(":n_samples") for name in reference if name.endswith(":n_samples"))
    tags = sorted(
        set(metrics) - {OVERALL}, key=lambda name: (rank.get(name.split(":")[0], 3), name)
    )
    for name in (OVERALL, *tags):
        std, count = reference[f"{name}:bootstrap_std"], reference[f"{name}:n_samples"]
        lines.append(f"  {name:<58} {reference[name]:7.4f} ± {std:.4f}  {count:6}")
    if len(result["worst_at_k"]) > 1:
        lines.append(
            "  worst-at-k  "
            + "  ".join(f"{k}: {value:.4f}" for k, value in result["worst_at_k"].items())
        )
    return lines


def _beside_lines(result: Mapping) -> list[str]:
    if not (beside := result["beside"]):
        return []
    adjusted = beside["length_adjusted"]
    label = f"length-adjusted, {adjusted['penalty_per_500_characters']:g} per 500 characters, clipped mean"
    figures = [
        ("mean, unclipped", beside["mean_unclipped"], beside["interval_by_prompt"]),
        (label, adjusted["mean_clipped"], adjusted["interval_by_prompt"]),
    ]
    lines = [
        f"  {name:<58} {value:7.4f}  95% by prompt {bounds(interval)}"
        for name, value, interval in figures
    ]
    characters = f"  characters per answer {beside['characters_per_answer']:.0f}, {beside['prompts']} prompts"
    return [f"Beside it, not comparable with it (rule: {beside['rule']})", *lines, characters]


def account_lines(result: Mapping) -> list[str]:
    """What became of every answer and every criterion; calls, tokens and cost."""
    answers, criteria, tokens = result["answers"], result["criteria"], result["tokens"]
    lines = [
        "Account",
        f"  answers  {answers['all']}: {_counts(answers)}",
        f"  criteria {criteria['all'] + criteria.get('not_asked', 0)}: {_counts(criteria)}",
        f"  grader   {result['calls']} calls, tokens: {_tokens(tokens, 'grader')}",
    ]
    if any(value for name, value in tokens.items() if name.startswith("policy_")):
        lines.append(f"  policy   tokens: {_tokens(tokens, 'policy')}")
    return lines + [f"  cost     {who} {value:.4f}" for who, value in result["cost"].items()]


def _counts(counts: Mapping) -> str:
    parts = [f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if name != "all"]
    return ", ".join(parts)


def _tokens(tokens: Mapping, who: str) -> str:
    prompt, cached, completion = (
        tokens.get(f"{who}_{kind}", 0) for kind in ("prompt", "cached", "completion")
    )
    return f"{prompt} in prompts, {cached} of them cached, {completion} generated"


def bounds(pair: tuple[float, float] | None) -> str:
    """An interval in brackets, or `none`."""
    return f"[{pair[0]:+.4f}, {pair[1]:+.4f}]" if pair else "none"


def comparison_lines(before: Summary, after: Summary) -> list[str]:
    """Paired differences after - before, overall and by theme and axis, on the prompts that both runs have."""
    lines = ["Paired difference on the same prompts (unclipped means over prompts, 95% by prompt)"]
    headings = f"{'prompts':>8} {'before':>8} {'after':>8} {'diff':>8}"
    lines.append(f"  {'':<40} {headings}  {'interval':<20} better/equal/worse")
    for name in [OVERALL, *after.tags("theme"), *after.tags("axis")]:
        if pair := paired(before, after, name):
            means = f"{pair['before']:>8.4f} {pair['after']:>8.4f} {pair['difference']:>+8.4f}"
            counts = f"{pair['better']}/{pair['equal']}/{pair['worse']}"
            interval = bounds(pair["interval_by_prompt"])
            lines.append(f"  {name:<40} {pair['prompts']:>8} {means}  {interval:<20} {counts}")
    if len(lines) == 2:
        lines.append("  none: the runs share no prompt with a score")
    alone = len(before.prompts.keys() ^ after.prompts.keys())
    return lines + ([f"  {alone} prompts are in one run only and left out"] if alone else [])
