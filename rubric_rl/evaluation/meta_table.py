"""A grader's agreement with physicians as plain text (stage 6, evaluation)."""

from collections.abc import Mapping

from rubric_rl.evaluation.tables import bounds

_COLUMNS = ("met", "not_met")


def agreement_lines(result: Mapping) -> list[str]:
    """Grader and physicians, overall and by cluster; then calibration, and what became of every row."""
    lines = [
        "Agreement with physicians, pairwise as simple-evals counts (precision, recall, F1 of met | of not met)"
    ]
    sides = f"{'met: P, R, F1':<23} {'not met: P, R, F1':<23}"
    lines.append(f"  {'':<58} {'pairs':>6}  {sides} {'balanced F1':>11} {'kappa':>7}")
    lines.append(_line("grader", result["grader"]))
    lines.append(_line("physicians among themselves (the ceiling)", result["physicians"]))
    for who in ("grader", "physicians"):
        f1, kappa = (
            bounds(result[who][f"{name}_interval_by_prompt"]) for name in ("balanced_f1", "kappa")
        )
        lines.append(f"  {who}: 95% by prompt: balanced F1 {f1}, kappa {kappa}")
    if each := result["physicians"]["each"]:
        share = each["share_below_the_grader"]
        below = "" if share is None else f"; {share:.0%} of them below the grader"
        spread = f"{each['lowest']:.4f} to {each['highest']:.4f}, median {each['median']:.4f}"
        lines.append(
            f"  {each['number']} physicians, each against the others: balanced F1 {spread}{below}"
        )
    lines.append("By cluster: the grader, and below it the physicians")
    for name, one in result["clusters"].items():
        peers = result["physician_clusters"][name]
        lines += [_line(name, one), *([_line("", peers)] if peers["pairs"] else [])]
    return lines + _calibration_lines(result["calibration"]) + _account_lines(result)


def _line(name: str, one: Mapping) -> str:
    parts = [
        "  ".join(number(one[side][key]) for key in ("precision", "recall", "f1"))
        for side in _COLUMNS
    ]
    return (
        f"  {name:<58} {one['pairs']:>6}  {parts[0]:<23} {parts[1]:<23} "
        f"{number(one['balanced_f1']):>11} {number(one['kappa']):>7}"
    )


def _calibration_lines(calibration: Mapping | None) -> list[str]:
    if not calibration:
        return ["Calibration: none (only grader_mode direct gives probabilities)"]
    errors = f"ECE {calibration['ece']:.4f}, Brier score {calibration['brier']:.4f}"
    lines = [f"Calibration of {calibration['labels']} labels: {errors}"]
    lines.append(f"  {'probability':<12} {'labels':>7} {'mean p':>8} {'met':>8}")
    for row in calibration["table"]:
        figures = f"{row['labels']:>7} {row['probability']:>8.4f} {row['met']:>8.4f}"
        lines.append(f"  {row['from']:.1f} to {row['to']:.1f}   {figures}")
    return lines


def _account_lines(result: Mapping) -> list[str]:
    grader, rows = result["grader"], result["rows"]
    lines = [
        "Account",
        "  rows " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in rows.items()),
    ]
    if grader["unreadable_pairs"]:
        worst = number(grader["balanced_f1_if_unreadable_were_wrong"])
        lines.append(f"  balanced F1 if every unreadable verdict were wrong: {worst}")
    return lines


def change_lines(changed: Mapping) -> list[str]:
    """Before against after, on the prompts of both."""
    lines = [f"Change on {changed['prompts']} prompts that both runs judged (95% by prompt)"]
    for name in ("balanced_f1", "kappa"):
        one = changed[name]
        difference = "     -" if one["difference"] is None else f"{one['difference']:+.4f}"
        moved = f"{number(one['before'])} -> {number(one['after'])}"
        lines.append(f"  {name:<12} {moved}  {difference}  {bounds(one['interval_by_prompt'])}")
    return lines


def number(value: float | None) -> str:
    """Four digits, or a dash where there is no value."""
    return "     -" if value is None else f"{value:.4f}"
