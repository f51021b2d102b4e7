"""Results as plain text: an evaluation's, a comparison's, a meta-evaluation's."""

from collections.abc import Mapping

from rubric_rl.evaluation.summary import OVERALL, TOKENS, Summary, paired

Bounds = tuple[float, float] | None
NAME = 58  # width of the column of names


def bounds(pair: Bounds) -> str:
    """An interval in brackets, or `none`."""
    return f"[{pair[0]:+.4f}, {pair[1]:+.4f}]" if pair else "none"


def number(value: float | None) -> str:
    """Four digits, or a dash where there is no value."""
    return "     -" if value is None else f"{value:.4f}"


def summary_lines(result: Mapping) -> list[str]:
    """The reference's figures, our own beside them, what became of every answer and criterion."""
    return _reference_lines(result) + _beside_lines(result) + account_lines(result)


def _reference_lines(result: Mapping) -> list[str]:
    reference = result["reference"]
    lines = ["Rubric score, HealthBench's as in simple-evals (clipped mean, bootstrap std, n)"]
    if not reference:
        return [*lines, "  none: no answer was graded"]
    for name in (OVERALL, *_tags(reference)):
        std, count = reference[f"{name}:bootstrap_std"], reference[f"{name}:n_samples"]
        lines.append(f"  {name:<{NAME}} {reference[name]:7.4f} ± {std:.4f}  {count:6}")
    worst = result["worst_at_k"]
    if len(worst) > 1:
        values = [f"{k}: {value:.4f}" for k, value in worst.items()]
        lines.append("  worst-at-k  " + "  ".join(values))
    return lines


def _tags(reference: Mapping) -> list[str]:
    """The metrics beside the overall score: themes, axes, levels, then the others."""
    ending = ":n_samples"
    names = {name.removesuffix(ending) for name in reference if name.endswith(ending)}
    rank = {"theme": 0, "axis": 1, "level": 2}
    return sorted(names - {OVERALL}, key=lambda name: (rank.get(name.split(":")[0], 3), name))


def _beside_lines(result: Mapping) -> list[str]:
    beside = result["beside"]
    if not beside:
        return []
    adjusted = beside["length_adjusted"]
    penalty = adjusted["penalty_per_500_characters"]
    label = f"length-adjusted, {penalty:g} per 500 characters, clipped mean"
    figures = [
        ("mean, unclipped", beside["mean_unclipped"], beside["interval_by_prompt"]),
        (label, adjusted["mean_clipped"], adjusted["interval_by_prompt"]),
    ]
    lines = [f"Beside it, not comparable with it (rule: {beside['rule']})"]
    for name, value, interval in figures:
        lines.append(f"  {name:<{NAME}} {value:7.4f}  95% by prompt {bounds(interval)}")
    characters = f"characters per answer {beside['characters_per_answer']:.0f}"
    return [*lines, f"  {characters}, {beside['prompts']} prompts"]


def account_lines(result: Mapping) -> list[str]:
    """What became of every answer and every criterion; calls, tokens and cost."""
    answers, criteria, tokens = result["answers"], result["criteria"], result["tokens"]
    planned = criteria["all"] + criteria.get("not_asked", 0)
    lines = [
        "Account",
        f"  answers  {answers['all']}: {_counts(answers)}",
        f"  criteria {planned}: {_counts(criteria)}",
        f"  grader   {result['calls']} calls, tokens: {_tokens(tokens, 'grader')}",
    ]
    if any(tokens.get(f"policy_{kind}") for kind in TOKENS):
        lines.append(f"  policy   tokens: {_tokens(tokens, 'policy')}")
    for who, value in result["cost"].items():
        lines.append(f"  cost     {who} {value:.4f}")
    return lines


def _counts(counts: Mapping) -> str:
    parts = [f"{value} {name.replace('_', ' ')}" for name, value in counts.items() if name != "all"]
    return ", ".join(parts)


def _tokens(tokens: Mapping, who: str) -> str:
    prompt, cached, completion = (tokens.get(f"{who}_{kind}", 0) for kind in TOKENS)
    return f"{prompt} in prompts, {cached} of them cached, {completion} generated"


def comparison_lines(before: Summary, after: Summary) -> list[str]:
    """Paired differences after - before, overall and by theme and axis.

    On the prompts that both runs have.
    """
    lines = ["Paired difference on the same prompts (unclipped means over prompts, 95% by prompt)"]
    columns = f"{'prompts':>8} {'before':>8} {'after':>8} {'diff':>8}"
    lines.append(f"  {'':<40} {columns}  {'interval':<20} better/equal/worse")
    for name in [OVERALL, *after.tags("theme"), *after.tags("axis")]:
        pair = paired(before, after, name)
        if not pair:
            continue
        means = f"{pair['before']:>8.4f} {pair['after']:>8.4f} {pair['difference']:>+8.4f}"
        interval = bounds(pair["interval_by_prompt"])
        counts = f"{pair['better']}/{pair['equal']}/{pair['worse']}"
        lines.append(f"  {name:<40} {pair['prompts']:>8} {means}  {interval:<20} {counts}")
    if len(lines) == 2:
        lines.append("  none: the runs share no prompt with a score")
    alone = len(before.prompts.keys() ^ after.prompts.keys())
    if alone:
        lines.append(f"  {alone} prompts are in one run only and left out")
    return lines


def agreement_lines(result: Mapping) -> list[str]:
    """Grader and physicians, overall and by cluster; calibration; what became of every row."""
    lines = [
        "Agreement with physicians, pairwise as simple-evals counts "
        "(precision, recall, F1 of met | of not met)"
    ]
    sides = f"{'met: P, R, F1':<23} {'not met: P, R, F1':<23}"
    lines.append(f"  {'':<{NAME}} {'pairs':>6}  {sides} {'balanced F1':>11} {'kappa':>7}")
    lines.append(_agreement_line("grader", result["grader"]))
    ceiling = "physicians among themselves (the ceiling)"
    lines.append(_agreement_line(ceiling, result["physicians"]))
    for who in ("grader", "physicians"):
        one = result[who]
        f1 = bounds(one["balanced_f1_interval_by_prompt"])
        kappa = bounds(one["kappa_interval_by_prompt"])
        lines.append(f"  {who}: 95% by prompt: balanced F1 {f1}, kappa {kappa}")
    lines += _each_physician_lines(result["physicians"]["each"])
    lines.append("By cluster: the grader, and below it the physicians")
    for name, one in result["clusters"].items():
        lines.append(_agreement_line(name, one))
        peers = result["physician_clusters"][name]
        if peers["pairs"]:
            lines.append(_agreement_line("", peers))
    return lines + _calibration_lines(result["calibration"]) + _rows_lines(result)


def _agreement_line(name: str, one: Mapping) -> str:
    met, not_met = (
        "  ".join(number(one[side][key]) for key in ("precision", "recall", "f1"))
        for side in ("met", "not_met")
    )
    balanced, kappa = number(one["balanced_f1"]), number(one["kappa"])
    return f"  {name:<{NAME}} {one['pairs']:>6}  {met:<23} {not_met:<23} {balanced:>11} {kappa:>7}"


def _each_physician_lines(each: Mapping | None) -> list[str]:
    if not each:
        return []
    share = each["share_below_the_grader"]
    below = "" if share is None else f"; {share:.0%} of them below the grader"
    spread = f"{each['lowest']:.4f} to {each['highest']:.4f}, median {each['median']:.4f}"
    what = f"{each['number']} physicians, each against the others"
    return [f"  {what}: balanced F1 {spread}{below}"]


def _calibration_lines(calibration: Mapping | None) -> list[str]:
    if not calibration:
        return ["Calibration: none (only grader_mode direct gives probabilities)"]
    errors = f"ECE {calibration['ece']:.4f}, Brier score {calibration['brier']:.4f}"
    lines = [f"Calibration of {calibration['labels']} labels: {errors}"]
    lines.append(f"  {'probability':<12} {'labels':>7} {'mean p':>8} {'met':>8}")
    for row in calibration["table"]:
        place = f"{row['from']:.1f} to {row['to']:.1f}"
        figures = f"{row['labels']:>7} {row['probability']:>8.4f} {row['met']:>8.4f}"
        lines.append(f"  {place}   {figures}")
    return lines


def _rows_lines(result: Mapping) -> list[str]:
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in result["rows"].items()]
    lines = ["Account", "  rows " + ", ".join(parts)]
    grader = result["grader"]
    if grader["unreadable_pairs"]:
        worst = number(grader["balanced_f1_if_unreadable_were_wrong"])
        lines.append(f"  balanced F1 if every unreadable verdict were wrong: {worst}")
    return lines


def change_lines(changed: Mapping) -> list[str]:
    """Before against after, on the prompts of both."""
    lines = [f"Change on {changed['prompts']} prompts that both runs judged (95% by prompt)"]
    for name in ("balanced_f1", "kappa"):
        one = changed[name]
        difference = "     -"
        if one["difference"] is not None:
            difference = f"{one['difference']:+.4f}"
        moved = f"{number(one['before'])} -> {number(one['after'])}"
        interval = bounds(one["interval_by_prompt"])
        lines.append(f"  {name:<12} {moved}  {difference}  {interval}")
    return lines
