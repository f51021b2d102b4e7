"""Results as plain text: an evaluation's, a comparison's, a meta-evaluation's."""

from collections.abc import Mapping

from rubric_rl.evaluation.summary import OVERALL, TOKENS, Summary, paired

METRIC = "  {name:<58} {value:7.4f} ± {std:.4f}  {count:6}"
BESIDE = "  {name:<58} {value:7.4f}  95% by prompt {interval}"
DIFFERENCE_HEAD = (
    "  {:<40} {prompts:>8} {before:>8} {after:>8} {diff:>8}  {interval:<20} better/equal/worse"
)
DIFFERENCE = (
    "  {name:<40} {prompts:>8} {before:>8.4f} {after:>8.4f} {difference:>+8.4f}"
    "  {interval:<20} {better}/{equal}/{worse}"
)
AGREEMENT = "  {name:<58} {pairs:>6}  {met:<23} {not_met:<23} {balanced:>11} {kappa:>7}"
CALIBRATION_HEAD = "  {probability:<12} {labels:>7} {mean:>8} {met:>8}"
CALIBRATION = "  {from:.1f} to {to:.1f}   {labels:>7} {probability:>8.4f} {met:>8.4f}"
CASCADE_HEAD = "  {limits:<13} {accuracy:>8}  {interval:<20} {again:>11} {decoded:>8}"
CASCADE = "  {limits:<13} {accuracy:>8.4f}  {interval:<20} {asked_again:>11.1%} {decoded:>8.2f}"
CHANGE = "  {name:<12} {before} -> {after}  {difference}  {interval}"
NO_NUMBER = "     -"


def bounds(pair: tuple[float, float] | None) -> str:
    """An interval in brackets, or `none`."""
    if not pair:
        return "none"
    low, high = pair
    return f"[{low:+.4f}, {high:+.4f}]"


def number(value: float | None) -> str:
    """Four digits, or a dash where there is no value."""
    if value is None:
        return NO_NUMBER
    return f"{value:.4f}"


def summary_lines(result: Mapping) -> list[str]:
    """The reference's figures, our own beside them, what became of every answer and criterion."""
    return [
        *_reference_lines(result),
        *_beside_lines(result),
        *account_lines(result),
        *published_lines(result.get("published")),
    ]


def published_lines(published: Mapping | None) -> list[str]:
    """Whether a score compares with published ones; none for anything but an evaluation."""
    if not published:
        return []
    if published["comparable"]:
        lines = [f"Comparable with published scores of {published['set']}"]
    else:
        reasons = "; ".join(published["reasons"])
        lines = [f"Not comparable with published HealthBench scores: {reasons}"]
    return lines + [f"  but {note}" for note in published["notes"]]


def _reference_lines(result: Mapping) -> list[str]:
    reference = result["reference"]
    lines = ["Rubric score, HealthBench's as in simple-evals (clipped mean, bootstrap std, n)"]
    if not reference:
        return [*lines, "  none: no answer was graded"]
    for name in (OVERALL, *_tags(reference)):
        line = METRIC.format(
            name=name,
            value=reference[name],
            std=reference[f"{name}:bootstrap_std"],
            count=reference[f"{name}:n_samples"],
        )
        lines.append(line)
    worst = result["worst_at_k"]
    if len(worst) > 1:
        values = ["  worst-at-k"]
        for k, value in worst.items():
            values.append(f"{k}: {value:.4f}")
        lines.append("  ".join(values))
    return lines


def _tags(reference: Mapping) -> list[str]:
    """The metrics beside the overall score: themes, axes, levels, then the others."""
    ending = ":n_samples"
    names = []
    for key in reference:
        name = key.removesuffix(ending)
        if key.endswith(ending) and name != OVERALL:
            names.append(name)
    order = {"theme": 0, "axis": 1, "level": 2}

    def place(name: str) -> tuple[int, str]:
        kind = name.split(":")[0]
        return order.get(kind, 3), name

    return sorted(names, key=place)


def _beside_lines(result: Mapping) -> list[str]:
    beside = result["beside"]
    if not beside:
        return []
    adjusted = beside["length_adjusted"]
    penalty = adjusted["penalty_per_500_characters"]
    mean_line = BESIDE.format(
        name="mean, unclipped",
        value=beside["mean_unclipped"],
        interval=bounds(beside["interval_by_prompt"]),
    )
    adjusted_line = BESIDE.format(
        name=f"length-adjusted, {penalty:g} per 500 characters, clipped mean",
        value=adjusted["mean_clipped"],
        interval=bounds(adjusted["interval_by_prompt"]),
    )
    characters = beside["characters_per_answer"]
    prompts = beside["prompts"]
    return [
        f"Beside it, not comparable with it (rule: {beside['rule']})",
        mean_line,
        adjusted_line,
        f"  characters per answer {characters:.0f}, {prompts} prompts",
    ]


def account_lines(result: Mapping) -> list[str]:
    """What became of every answer and every criterion; calls, tokens and cost."""
    answers = result["answers"]
    criteria = result["criteria"]
    tokens = result["tokens"]
    not_asked = criteria.get("not_asked", 0)
    planned = criteria["all"] + not_asked
    of_policy = [tokens.get(f"policy_{kind}") for kind in TOKENS]
    lines = [
        "Account",
        f"  answers  {answers['all']}: {_counts(answers)}",
        f"  criteria {planned}: {_counts(criteria)}",
        f"  grader   {result['calls']} calls, tokens: {_tokens(tokens, 'grader')}",
    ]
    if any(of_policy):
        lines.append(f"  policy   tokens: {_tokens(tokens, 'policy')}")
    for who, value in result["cost"].items():
        lines.append(f"  cost     {who} {value:.4f}")
    return lines


def _counts(counts: Mapping) -> str:
    """`3 met, 4 not met, ...`: every count beside the sum."""
    parts = dict(counts)
    parts.pop("all")
    return _in_words(parts)


def _in_words(counts: Mapping) -> str:
    parts = []
    for name, value in counts.items():
        words = name.replace("_", " ")
        parts.append(f"{value} {words}")
    return ", ".join(parts)


def _tokens(tokens: Mapping, who: str) -> str:
    counts = [tokens.get(f"{who}_{kind}", 0) for kind in TOKENS]
    prompt, cached, completion = counts
    return f"{prompt} in prompts, {cached} of them cached, {completion} generated"


def comparison_lines(before: Summary, after: Summary) -> list[str]:
    """Paired differences after - before, overall and by theme and axis.

    On the prompts that both runs have.
    """
    title = "Paired difference on the same prompts (unclipped means over prompts, 95% by prompt)"
    head = DIFFERENCE_HEAD.format(
        "",
        prompts="prompts",
        before="before",
        after="after",
        diff="diff",
        interval="interval",
    )
    rows = []
    themes = after.tags("theme")
    axes = after.tags("axis")
    for name in (OVERALL, *themes, *axes):
        pair = paired(before, after, name)
        if pair:
            interval = bounds(pair["interval_by_prompt"])
            rows.append(DIFFERENCE.format(name=name, interval=interval, **pair))
    if not rows:
        rows = ["  none: the runs share no prompt with a score"]
    alone = before.prompts.keys() ^ after.prompts.keys()
    if alone:
        rows.append(f"  {len(alone)} prompts are in one run only and left out")
    return [title, head, *rows]


def agreement_lines(result: Mapping) -> list[str]:
    """Grader and physicians, overall and by cluster; calibration; what became of every row."""
    head = AGREEMENT.format(
        name="",
        pairs="pairs",
        met="met: P, R, F1",
        not_met="not met: P, R, F1",
        balanced="balanced F1",
        kappa="kappa",
    )
    lines = [
        "Agreement with physicians, pairwise as simple-evals counts "
        "(precision, recall, F1 of met | of not met)",
        head,
        _agreement_line("grader", result["grader"]),
        _agreement_line("physicians among themselves (the ceiling)", result["physicians"]),
        _intervals_line("grader", result["grader"]),
        _intervals_line("physicians", result["physicians"]),
        *_each_physician_lines(result["physicians"]["each"]),
        "By cluster: the grader, and below it the physicians",
    ]
    for name, one in result["clusters"].items():
        lines.append(_agreement_line(name, one))
        peers = result["physician_clusters"][name]
        if peers["pairs"]:
            lines.append(_agreement_line("", peers))
    return [
        *lines,
        *_calibration_lines(result["calibration"]),
        *_rows_lines(result),
    ]


def _agreement_line(name: str, one: Mapping) -> str:
    return AGREEMENT.format(
        name=name,
        pairs=one["pairs"],
        met=_precision_recall_f1(one["met"]),
        not_met=_precision_recall_f1(one["not_met"]),
        balanced=number(one["balanced_f1"]),
        kappa=number(one["kappa"]),
    )


def _precision_recall_f1(side: Mapping) -> str:
    values = [number(side[key]) for key in ("precision", "recall", "f1")]
    return "  ".join(values)


def _intervals_line(who: str, one: Mapping) -> str:
    f1 = bounds(one["balanced_f1_interval_by_prompt"])
    kappa = bounds(one["kappa_interval_by_prompt"])
    return f"  {who}: 95% by prompt: balanced F1 {f1}, kappa {kappa}"


def _each_physician_lines(each: Mapping | None) -> list[str]:
    if not each:
        return []
    spread = "{lowest:.4f} to {highest:.4f}, median {median:.4f}".format(**each)
    share = each["share_below_the_grader"]
    below = ""
    if share is not None:
        below = f"; {share:.0%} of them below the grader"
    what = f"{each['number']} physicians, each against the others"
    return [f"  {what}: balanced F1 {spread}{below}"]


def _calibration_lines(calibration: Mapping | None) -> list[str]:
    if not calibration:
        give = "grader_mode direct and cascade, and grader_verdict probability"
        return [f"Calibration: none (only {give} give probabilities)"]
    title = "Calibration of {labels} labels: ECE {ece:.4f}, Brier score {brier:.4f}"
    head = CALIBRATION_HEAD.format(
        probability="probability",
        labels="labels",
        mean="mean p",
        met="met",
    )
    auc = calibration.get("auc")
    if auc is not None:
        title += ", AUC {auc:.4f}"
    lines = [title.format(**calibration), head]
    for row in calibration["table"]:
        lines.append(CALIBRATION.format(**row))
    return lines


def cascade_lines(cascade: Mapping | None) -> list[str]:
    """Accuracy and tokens over the limits of a cascade, and which are proposed; none without."""
    if not cascade:
        return []
    head = CASCADE_HEAD.format(
        limits="unsure",
        accuracy="accuracy",
        interval="against the last",
        again="asked again",
        decoded="decoded",
    )
    lines = ["Cascade over its limits; decoded are tokens per criterion", head]
    for point in cascade["curve"]:
        limits = "{low:g} and {high:g}".format(**point)
        interval = bounds(point["against_widest"])
        lines.append(CASCADE.format(**point, limits=limits, interval=interval))
    proposed = cascade["proposed"]
    what = "grader_cascade_low: {low:g}, grader_cascade_high: {high:g}".format(**proposed)
    return [*lines, f"  proposed: {what}, the narrowest with at least the last accuracy"]


def _rows_lines(result: Mapping) -> list[str]:
    rows = _in_words(result["rows"])
    lines = ["Account", f"  rows {rows}"]
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
        difference = NO_NUMBER
        if one["difference"] is not None:
            difference = f"{one['difference']:+.4f}"
        line = CHANGE.format(
            name=name,
            before=number(one["before"]),
            after=number(one["after"]),
            difference=difference,
            interval=bounds(one["interval_by_prompt"]),
        )
        lines.append(line)
    return lines
