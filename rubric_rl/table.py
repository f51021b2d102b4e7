"""Results as plain text (stage 6, evaluation)."""

from collections.abc import Mapping

from rubric_rl.summary import OVERALL, Summary, paired


def summary_lines(result: Mapping) -> list[str]:
    """The reference's figures, what stands beside them, and the account of every criterion."""
    return _reference_lines(result) + _beside_lines(result) + account_lines(result)


def _reference_lines(result: Mapping) -> list[str]:
    reference, lines = (
        result["reference"],
        ["Rubric score, HealthBench's as in simple-evals (clipped mean, bootstrap std, n)"],
    )
    if not reference:
        return lines + ["  none: no answer was graded"]
    rank = {"theme": 0, "axis": 1, "level": 2}
    names = [
        name for name in reference if ":n_samples" not in name and ":bootstrap_std" not in name and name != OVERALL
    ]
    for name in [OVERALL, *sorted(names, key=lambda name: (rank.get(name.split(":")[0], 3), name))]:
        lines.append(
            f"  {name:<58} {reference[name]:7.4f} ± {reference[f'{name}:bootstrap_std']:.4f}"
            f"  {reference[f'{name}:n_samples']:6}"
        )
    if len(result["worst_at_k"]) > 1:
        lines.append("  worst-at-k  " + "  ".join(f"{k}: {value:.4f}" for k, value in result["worst_at_k"].items()))
    return lines


def _beside_lines(result: Mapping) -> list[str]:
    if not (beside := result["beside"]):
        return []
    adjusted = beside["length_adjusted"]
    return [
        f"Beside it, not comparable with it (rule: {beside['rule']})",
        f"  mean, unclipped{' ':<43} {beside['mean_unclipped']:7.4f}"
        f"  95% by prompt {bounds(beside['interval_by_prompt'])}",
        f"  length-adjusted, {adjusted['penalty_per_500_characters']:g} per 500 characters, clipped mean"
        f"{' ':<10} {adjusted['mean_clipped']:7.4f}  95% by prompt {bounds(adjusted['interval_by_prompt'])}",
        f"  characters per answer {beside['characters_per_answer']:.0f}, {beside['prompts']} prompts",
    ]


def account_lines(result: Mapping) -> list[str]:
    """Where every answer and every criterion went, the calls, tokens and cost."""
    answers, tokens = result["answers"], result["tokens"]
    lines = [
        "Account",
        f"  answers  {answers['all']}: " + _counts(answers),
        f"  criteria {result['criteria']['all'] + result['criteria'].get('not_asked', 0)}: "
        + _counts(result["criteria"]),
        f"  grader   {result['calls']} calls, tokens: {_tokens(tokens, 'grader')}",
    ]
    if any(value for name, value in tokens.items() if name.startswith("policy_")):
        lines.append(f"  policy   tokens: {_tokens(tokens, 'policy')}")
    return lines + [f"  cost     {who} {value:.4f}" for who, value in result["cost"].items()]


def _counts(counts: Mapping) -> str:
    parts = [f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if name != "all"]
    return ", ".join(parts)


def _tokens(tokens: Mapping, who: str) -> str:
    prompt, cached, completion = (tokens.get(f"{who}_{kind}", 0) for kind in ("prompt", "cached", "completion"))
    return f"{prompt} in prompts, {cached} of them cached, {completion} generated"


def bounds(pair: tuple[float, float] | None) -> str:
    """An interval in brackets, or `none`."""
    return f"[{pair[0]:+.4f}, {pair[1]:+.4f}]" if pair else "none"


def comparison_lines(before: Summary, after: Summary) -> list[str]:
    """Paired differences after - before, overall and by theme and axis, on the prompts that both runs have."""
    lines = ["Paired difference on the same prompts (unclipped means over prompts, 95% by prompt)"]
    lines.append(
        f"  {'':<40} {'prompts':>8} {'before':>8} {'after':>8} {'diff':>8}  {'interval':<20} better/equal/worse"
    )
    for name in [OVERALL, *after.shown("theme"), *after.shown("axis")]:
        if pair := paired(before, after, name):
            lines.append(
                f"  {name:<40} {pair['prompts']:>8} {pair['before']:>8.4f} {pair['after']:>8.4f}"
                f" {pair['difference']:>+8.4f}"
                f"  {bounds(pair['interval_by_prompt']):<20} {pair['better']}/{pair['equal']}/{pair['worse']}"
            )
    if len(lines) == 2:
        lines.append("  none: the runs share no prompt with a score")
    alone = len(before.prompts.keys() ^ after.prompts.keys())
    return lines + ([f"  {alone} prompts stand in one run only and are left out"] if alone else [])
