"""What is true in the tiny world: conditions, modifiers, advice, and every wording of them (stage 1, prompt).

A statement is (kind, key): ("do", "aspirin") recommends it, ("not", "aspirin") says to avoid it, ("is", "migraine")
names the cause, ("wish", "well") wishes well. Every statement has a few whole sentences, and nothing else states it.
"""

from dataclasses import dataclass

Statement = tuple[str, str]

# key word -> what to do with it. The key word stands in the advice and in the criterion, right after its verb, so that
# a model of this size learns to grade in minutes.
ADVICE = {
    phrase.split()[1]: phrase
    for phrase in (
        "drink fluids", "drink tea", "drink alcohol", "drink coffee", "drink milk", "take ibuprofen",
        "take paracetamol", "take aspirin", "take penicillin", "take naproxen", "take antacids", "take laxatives",
        "take iron", "take salts", "take honey", "take vitamins", "take codeine", "get rest", "get vaccines",
        "get tests", "use ice", "use heat", "use cream", "use sunscreen", "use eyedrops", "use inhalers",
        "use sprays", "use steam", "use soap", "use perfume", "use saltwater", "use cushions", "wear splints",
        "wear bandages", "wear lenses", "wear gloves", "wear sunglasses", "eat fiber", "eat rice", "eat spices",
        "eat snacks", "eat meat", "watch screens", "do stretching", "lift weights", "go running",
        "smoke cigarettes", "clean wounds", "keep notes", "call paramedics", "see doctors", "see midwives",
        "see pediatricians", "ask pharmacists", "check pressure",
    )
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """Symptoms in two wordings, what a good answer says and what a bad one says."""

    symptoms: tuple[str, str]
    good: tuple[Statement, ...]
    bad: tuple[Statement, ...]


@dataclass(frozen=True)
class Modifier:
    """What is special about the patient, in two wordings; `good` and `bad` hold for every condition of theirs."""

    wordings: tuple[str, str]
    good: tuple[Statement, ...]
    bad: tuple[Statement, ...]


def _statements(text: str) -> tuple[Statement, ...]:
    """Reads "rest, not coffee" as (("do", "rest"), ("not", "coffee"))."""
    parts = [part.strip() for part in text.split(",")]
    return tuple(("not", part[4:]) if part.startswith("not ") else ("do", part) for part in parts)


def _condition(symptoms: str, good: str, bad: str) -> Condition:
    first, second = symptoms.split(" / ")
    return Condition((first, second), _statements(good), _statements(bad))


CONDITIONS = {
    "migraine": _condition(
        "a throbbing headache / pain behind one eye", "sunglasses, notes, not screens", "screens, coffee"
    ),
    "flu": _condition(
        "fever and aching muscles / chills and weakness", "fluids, rest, paracetamol", "running, not rest"
    ),
    "heartburn": _condition(
        "burning behind the breastbone / sour burps", "antacids, not spices, not snacks", "spices, coffee"
    ),
    "constipation": _condition("hard stools / no stool for days", "fiber, fluids, laxatives", "iron, not fiber"),
    "anemia": _condition("pale lips / tiredness and pale hands", "iron, tests, meat", "tea, not iron"),
    "asthma": _condition(
        "wheezing / a tight chest at night", "inhalers, not cigarettes, vaccines", "cigarettes, perfume"
    ),
    "eczema": _condition("itchy elbows / dry itchy patches", "cream, gloves, not perfume", "soap, not gloves"),
    "pinkeye": _condition("a red sticky eye / yellow eye crusts", "eyedrops, soap, not lenses", "lenses, not soap"),
    "sprain": _condition("a swollen ankle / a twisted ankle", "ice, cushions, bandages", "running, heat"),
    "backache": _condition(
        "a stiff back / back pain after gardening", "stretching, heat, not weights", "weights, codeine"
    ),
    "gastritis": _condition("stomach pain / a gnawing stomach", "rice, not aspirin, not alcohol", "aspirin, alcohol"),
    "sunburn": _condition(
        "hot red shoulders / peeling after the beach", "sunscreen, cream, fluids", "ice, not sunscreen"
    ),
    "sinusitis": _condition(
        "a blocked nose / pressure in the cheeks", "steam, sprays, paracetamol", "cigarettes, not steam"
    ),
    "tonsillitis": _condition("a sore throat / pain when swallowing", "saltwater, honey, rest", "cigarettes, spices"),
    "cough": _condition("a tickly cough / coughing all night", "honey, steam, not cigarettes", "cigarettes, codeine"),
    "diarrhea": _condition("watery stools / loose stools all day", "salts, rice, not milk", "laxatives, milk"),
    "insomnia": _condition("no sleep / lying awake for hours", "notes, not coffee, not screens", "coffee, alcohol"),
    "gout": _condition("a hot swollen toe / a painful red toe", "ice, cushions, not alcohol", "meat, alcohol"),
    "infarction": _condition(
        "crushing chest pain / chest pain in the arm", "paramedics, aspirin, not running", "running, antacids"
    ),
    "cut": _condition("a bleeding finger / a deep scratch", "wounds, bandages, vaccines", "perfume, not bandages"),
}  # fmt: skip

MODIFIERS = {
    "adult": Modifier(
        ("I am healthy.", "I take no medicines."),
        _statements("doctors, vitamins"),
        _statements("not doctors"),
    ),
    "pregnant": Modifier(
        ("I am pregnant.", "I expect a baby."),
        _statements("midwives, not ibuprofen"),
        _statements("ibuprofen"),
    ),
    "child": Modifier(
        ("I am six years old.", "I am a child."),
        _statements("pediatricians, not codeine"),
        _statements("codeine"),
    ),
    "allergy": Modifier(
        ("I have a penicillin allergy.", "I cannot have penicillin."),
        _statements("pharmacists, not penicillin"),
        _statements("penicillin"),
    ),
    "kidney": Modifier(
        ("I have kidney disease.", "My kidneys are weak."),
        _statements("pressure, not naproxen"),
        _statements("naproxen"),
    ),
}

# The patients' wordings, filled with {symptom} and {modifier}. Several texts alternate between user and assistant.
PATIENTS = (
    ("I have {symptom}. {modifier} What should I do?",),
    ("{modifier} Since yesterday I have {symptom}. Tell me whom to see.",),
    ("Please help me with {symptom}. {modifier}",),
    ("Hello, I need advice.", "What is wrong?", "It is {symptom}. {modifier}"),
)

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

STATEMENTS: tuple[Statement, ...] = (
    *((kind, key) for key in ADVICE for kind in ("do", "not")),
    *(("is", name) for name in CONDITIONS),
    ("wish", "well"),
)


def sentences(statement: Statement) -> tuple[str, ...]:
    """Every whole sentence that states `statement`."""
    kind, key = statement
    return tuple(frame.format(phrase=ADVICE.get(key, ""), key=key) for frame in _SENTENCES[kind])


def criteria(statement: Statement) -> tuple[str, ...]:
    """Every wording of the criterion that an answer makes `statement`."""
    kind, key = statement
    return tuple(frame.format(phrase=ADVICE.get(key, ""), key=key) for frame in _CRITERIA[kind])
