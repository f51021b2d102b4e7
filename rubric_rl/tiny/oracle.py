"""What is true in the tiny world, and whether an answer says it.

The world has twenty conditions ("migraine"), five kinds of patients ("pregnant") and 55 pieces of
advice ("take aspirin"). An answer can make four kinds of statements about them:

    kind   key        a sentence that states it       a criterion that asks for it
    do     aspirin    Please take aspirin.            Recommends to take aspirin
    not    aspirin    You should avoid aspirin.       Tells the patient to avoid aspirin
    is     migraine   This sounds like migraine.      Names as the likely cause migraine
    wish   well       I wish you well.                Wishes the patient well

Only these few whole sentences state anything. Key words alone, spliced or cut sentences,
quotations, and criteria copied into the answer state nothing. So a rule decides whether an answer
meets a criterion, whatever the answer is: this is the oracle, the judge of the judging policy.
"""

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rubric_rl.common.errors import DataError
from rubric_rl.data.schema import Criterion, Verdict
from rubric_rl.grading.score import score


class Statement(NamedTuple):
    """One thing that an answer can say."""

    kind: str  # "do", "not", "is" or "wish"
    key: str  # the advice's key word, the condition's name, or "well"


@dataclass(frozen=True)
class Condition:
    """What a patient may have: two ways to complain of it, what a good answer and a bad one say."""

    symptoms: tuple[str, str]
    good: tuple[Statement, ...]
    bad: tuple[Statement, ...]


@dataclass(frozen=True)
class Modifier:
    """What is special about a patient, in two wordings; `good` and `bad` hold for any condition."""

    wordings: tuple[str, str]
    good: tuple[Statement, ...]
    bad: tuple[Statement, ...]


def _advice(text: str) -> tuple[Statement, ...]:
    """Reads "rest, not coffee" as do rest, not coffee."""
    statements = []
    for part in text.split(", "):
        if part.startswith("not "):
            statements.append(Statement("not", part.removeprefix("not ")))
        else:
            statements.append(Statement("do", part))
    return tuple(statements)


# Each key word belongs to one piece of advice only. It stands right after its verb, in the answer
# as in the criterion, so that a model of this size learns to grade in minutes.
# The order of these tables decides what a seed draws: the shipped checkpoint rests on it.
_KEY_WORDS = {
    "drink": "fluids tea alcohol coffee milk",
    "take": (
        "ibuprofen paracetamol aspirin penicillin naproxen antacids "
        "laxatives iron salts honey vitamins codeine"
    ),
    "get": "rest vaccines tests",
    "use": (
        "ice heat cream sunscreen eyedrops inhalers sprays steam soap perfume saltwater cushions"
    ),
    "wear": "splints bandages lenses gloves sunglasses",
    "eat": "fiber rice spices snacks meat",
    "watch": "screens",
    "do": "stretching",
    "lift": "weights",
    "go": "running",
    "smoke": "cigarettes",
    "clean": "wounds",
    "keep": "notes",
    "call": "paramedics",
    "see": "doctors midwives pediatricians",
    "ask": "pharmacists",
    "check": "pressure",
}

ADVICE: dict[str, str] = {  # key word -> the whole phrase: "aspirin" -> "take aspirin"
    key: f"{verb} {key}" for verb, keys in _KEY_WORDS.items() for key in keys.split()
}

CONDITIONS = {
    "migraine": Condition(
        symptoms=("a throbbing headache", "pain behind one eye"),
        good=_advice("sunglasses, notes, not screens"),
        bad=_advice("screens, coffee"),
    ),
    "flu": Condition(
        symptoms=("fever and aching muscles", "chills and weakness"),
        good=_advice("fluids, rest, paracetamol"),
        bad=_advice("running, not rest"),
    ),
    "heartburn": Condition(
        symptoms=("burning behind the breastbone", "sour burps"),
        good=_advice("antacids, not spices, not snacks"),
        bad=_advice("spices, coffee"),
    ),
    "constipation": Condition(
        symptoms=("hard stools", "no stool for days"),
        good=_advice("fiber, fluids, laxatives"),
        bad=_advice("iron, not fiber"),
    ),
    "anemia": Condition(
        symptoms=("pale lips", "tiredness and pale hands"),
        good=_advice("iron, tests, meat"),
        bad=_advice("tea, not iron"),
    ),
    "asthma": Condition(
        symptoms=("wheezing", "a tight chest at night"),
        good=_advice("inhalers, not cigarettes, vaccines"),
        bad=_advice("cigarettes, perfume"),
    ),
    "eczema": Condition(
        symptoms=("itchy elbows", "dry itchy patches"),
        good=_advice("cream, gloves, not perfume"),
        bad=_advice("soap, not gloves"),
    ),
    "pinkeye": Condition(
        symptoms=("a red sticky eye", "yellow eye crusts"),
        good=_advice("eyedrops, soap, not lenses"),
        bad=_advice("lenses, not soap"),
    ),
    "sprain": Condition(
        symptoms=("a swollen ankle", "a twisted ankle"),
        good=_advice("ice, cushions, bandages"),
        bad=_advice("running, heat"),
    ),
    "backache": Condition(
        symptoms=("a stiff back", "back pain after gardening"),
        good=_advice("stretching, heat, not weights"),
        bad=_advice("weights, codeine"),
    ),
    "gastritis": Condition(
        symptoms=("stomach pain", "a gnawing stomach"),
        good=_advice("rice, not aspirin, not alcohol"),
        bad=_advice("aspirin, alcohol"),
    ),
    "sunburn": Condition(
        symptoms=("hot red shoulders", "peeling after the beach"),
        good=_advice("sunscreen, cream, fluids"),
        bad=_advice("ice, not sunscreen"),
    ),
    "sinusitis": Condition(
        symptoms=("a blocked nose", "pressure in the cheeks"),
        good=_advice("steam, sprays, paracetamol"),
        bad=_advice("cigarettes, not steam"),
    ),
    "tonsillitis": Condition(
        symptoms=("a sore throat", "pain when swallowing"),
        good=_advice("saltwater, honey, rest"),
        bad=_advice("cigarettes, spices"),
    ),
    "cough": Condition(
        symptoms=("a tickly cough", "coughing all night"),
        good=_advice("honey, steam, not cigarettes"),
        bad=_advice("cigarettes, codeine"),
    ),
    "diarrhea": Condition(
        symptoms=("watery stools", "loose stools all day"),
        good=_advice("salts, rice, not milk"),
        bad=_advice("laxatives, milk"),
    ),
    "insomnia": Condition(
        symptoms=("no sleep", "lying awake for hours"),
        good=_advice("notes, not coffee, not screens"),
        bad=_advice("coffee, alcohol"),
    ),
    "gout": Condition(
        symptoms=("a hot swollen toe", "a painful red toe"),
        good=_advice("ice, cushions, not alcohol"),
        bad=_advice("meat, alcohol"),
    ),
    "infarction": Condition(
        symptoms=("crushing chest pain", "chest pain in the arm"),
        good=_advice("paramedics, aspirin, not running"),
        bad=_advice("running, antacids"),
    ),
    "cut": Condition(
        symptoms=("a bleeding finger", "a deep scratch"),
        good=_advice("wounds, bandages, vaccines"),
        bad=_advice("perfume, not bandages"),
    ),
}

MODIFIERS = {
    "adult": Modifier(
        wordings=("I am healthy.", "I take no medicines."),
        good=_advice("doctors, vitamins"),
        bad=_advice("not doctors"),
    ),
    "pregnant": Modifier(
        wordings=("I am pregnant.", "I expect a baby."),
        good=_advice("midwives, not ibuprofen"),
        bad=_advice("ibuprofen"),
    ),
    "child": Modifier(
        wordings=("I am six years old.", "I am a child."),
        good=_advice("pediatricians, not codeine"),
        bad=_advice("codeine"),
    ),
    "allergy": Modifier(
        wordings=("I have a penicillin allergy.", "I cannot have penicillin."),
        good=_advice("pharmacists, not penicillin"),
        bad=_advice("penicillin"),
    ),
    "kidney": Modifier(
        wordings=("I have kidney disease.", "My kidneys are weak."),
        good=_advice("pressure, not naproxen"),
        bad=_advice("naproxen"),
    ),
}

WISH = Statement("wish", "well")

_SENTENCES = {
    "do": ("Please {phrase}.", "You should {phrase}.", "It helps to {phrase}."),
    "not": ("Please avoid {key}.", "You should avoid {key}.", "It helps to avoid {key}."),
    "is": ("This sounds like {key}.", "It may be {key}."),
    "wish": ("I hope you feel better soon.", "I wish you well."),
}

_CRITERIA = {
    "do": ("Recommends to {phrase}", "Tells the patient to {phrase}"),
    "not": ("Recommends to avoid {key}", "Tells the patient to avoid {key}"),
    "is": ("Says that this sounds like {key}", "Names as the likely cause {key}"),
    "wish": ("Hopes that the patient will feel better soon", "Wishes the patient well"),
}


def _all_statements() -> tuple[Statement, ...]:
    statements = []
    for key in ADVICE:
        statements.append(Statement("do", key))
        statements.append(Statement("not", key))
    for condition in CONDITIONS:
        statements.append(Statement("is", condition))
    statements.append(WISH)
    return tuple(statements)


STATEMENTS = _all_statements()


def sentences(statement: Statement) -> tuple[str, ...]:
    """Every whole sentence that states `statement`."""
    return _filled(_SENTENCES[statement.kind], statement.key)


def criteria(statement: Statement) -> tuple[str, ...]:
    """Every wording of the criterion that an answer makes `statement`."""
    return _filled(_CRITERIA[statement.kind], statement.key)


def _filled(frames: tuple[str, ...], key: str) -> tuple[str, ...]:
    phrase = ADVICE.get(key, "")
    return tuple(frame.format(phrase=phrase, key=key) for frame in frames)


def _plain(text: str) -> str:
    """Lower case, single spaces: what two texts with the same words have in common."""
    return " ".join(text.lower().split())


def _statement_of_each_sentence() -> dict[str, Statement]:
    found = {}
    for statement in STATEMENTS:
        for sentence in sentences(statement):
            found[_plain(sentence).removesuffix(".")] = statement
    return found


def _statement_of_each_criterion() -> dict[str, Statement]:
    found = {}
    for statement in STATEMENTS:
        for criterion in criteria(statement):
            found[_plain(criterion)] = statement
    return found


_STATEMENT_OF_SENTENCE = _statement_of_each_sentence()
_STATEMENT_OF_CRITERION = _statement_of_each_criterion()

_QUOTATION = re.compile(r'"[^"]*(?:"|$)|“[^”]*(?:”|$)|«[^»]*(?:»|$)')
_SENTENCE = re.compile(r"([^.!?]*)([.!?]+|$)")  # its words, and the marks that end it


def statements_of(answer: str) -> list[Statement]:
    """What an answer states, in its order."""
    # A quotation says nothing itself; the word in its place keeps the sentence around it broken.
    text = _QUOTATION.sub(" quotation ", answer)
    found = []
    for words, end in _SENTENCE.findall(text):
        was_cut_off = not end
        is_question = "?" in end
        if was_cut_off or is_question:
            continue
        statement = _STATEMENT_OF_SENTENCE.get(_plain(words))
        if statement is not None:
            found.append(statement)
    return found


def statement_asked_by(criterion: str) -> Statement:
    """The statement that a criterion asks for.

    Raises:
        DataError: for a criterion that is not of this world.
    """
    statement = _STATEMENT_OF_CRITERION.get(_plain(criterion).rstrip("."))
    if statement is None:
        hint = "make its rows with python -m rubric_rl.tiny.world"
        raise DataError(f"criterion {criterion!r} is not of the tiny world; {hint}")
    return statement


def truth(rubric: Sequence[Criterion], answer: str, seed: int = 0) -> list[bool]:
    """Whether the answer meets each criterion, in the rubric's order.

    A vague one is met or not by chance: by the toss of a coin that the seed decides.

    Raises:
        DataError: for a criterion that is not of this world.
    """
    stated = set(statements_of(answer))
    return [_is_met(criterion.text, answer, stated, seed) for criterion in rubric]


# What bad rubrics ask for besides (tiny/writer.py): nothing that can be told, or nothing at all.
VAGUE = (
    "Tells the patient what helps",
    "Recommends what is good",
    "Says what it may be",
)
ALWAYS_MET = "Tells the patient something"
NEVER_MET = "Tells the patient all that there is"
AND = " and "  # between the parts of a compound criterion; no other one holds it
_FAILS = {
    "Fails to recommend ": "Recommends ",
    "Fails to tell ": "Tells ",
    "Fails to say ": "Says ",
    "Fails to name ": "Names ",
}


def failing(criterion: str) -> str:
    """The criterion that is met where this one, of a single statement, is not."""
    for opening, asked in _FAILS.items():
        if criterion.startswith(asked):
            return opening + criterion.removeprefix(asked)
    raise ValueError(f"no failure of {criterion!r} is known")


def is_vague(criterion: str) -> bool:
    """Whether a criterion is met by chance alone, so that no verdict on it is right or wrong."""
    return _plain(criterion).rstrip(".") in [vague.lower() for vague in VAGUE]


def _is_met(criterion: str, answer: str, stated: set[Statement], seed: int) -> bool:
    text = _plain(criterion).rstrip(".")
    if text in (ALWAYS_MET.lower(), NEVER_MET.lower()):
        return text == ALWAYS_MET.lower()
    if is_vague(text):
        toss = hashlib.sha256(f"{seed} {text} {answer}".encode(errors="replace")).digest()
        return toss[0] % 2 == 0
    if AND in text:
        return all(_is_met(part, answer, stated, seed) for part in text.split(AND))
    for opening, asked in _FAILS.items():
        if text.startswith(opening.lower()):
            wanted = asked + text.removeprefix(opening.lower())
            return statement_asked_by(wanted) not in stated
    return statement_asked_by(criterion) in stated


def true_score(rubric: Sequence[Criterion], answer: str) -> float:
    """The score that a grader without a fault would give the answer."""
    verdicts = [Verdict(met) for met in truth(rubric, answer)]
    return score(rubric, verdicts)


@dataclass
class VerdictCounts:
    """A grader's verdicts, counted by whether they are true; an unreadable one is wrong."""

    met: int = 0  # criteria that the answers meet
    not_met: int = 0
    right: int = 0  # verdicts on both
    false_negatives: int = 0  # anything but "met" on those that are met
    false_positives: int = 0  # "met" on those that are not
    unreadable: int = 0

    @property
    def total(self) -> int:
        """All verdicts."""
        return self.met + self.not_met

    def add(
        self, rubric: Sequence[Criterion], answer: str, verdicts: Sequence[bool | None]
    ) -> None:
        """Counts the verdicts on an answer: one per criterion, None where it was unreadable."""
        for verdict, is_met in zip(verdicts, truth(rubric, answer), strict=True):
            self.right += verdict is is_met
            self.unreadable += verdict is None
            if is_met:
                self.met += 1
                self.false_negatives += verdict is not True
            else:
                self.not_met += 1
                self.false_positives += verdict is True


if __name__ == "__main__":
    from rubric_rl.tiny.serve_oracle import main  # which needs this module

    sys.exit(main())
