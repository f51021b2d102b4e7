"""What is true in the tiny world: conditions, modifiers, advice, and every wording of them (stage 1, prompt).

A statement is (kind, key): ("do", "aspirin") recommends it, ("not", "aspirin") warns against it, ("is", "migraine") names
the cause, ("wish", "well") wishes well. Every statement has a few whole sentences, and nothing else states it.
"""

from dataclasses import dataclass

Statement = tuple[str, str]

# key word -> verb phrase. The key word stands in the advice and in the criterion, and in no other verb phrase.
ADVICE = {
    phrase.split()[-1]: phrase
    for phrase in (
        "drink more fluids", "drink ginger tea", "drink alcohol", "drink coffee", "drink cold milk", "take ibuprofen",
        "take paracetamol", "take aspirin", "take penicillin", "take naproxen", "take antacids", "take laxatives",
        "take iron", "take salts", "take honey", "take vitamins", "take codeine", "get more rest", "get a vaccine",
        "get a blood test", "use some ice", "use a heatpad", "use a cream", "use sunscreen", "use eyedrops", "use an inhaler",
        "use a spray", "use steam", "use soap", "use perfume", "wear a splint", "wear a bandage", "wear lenses",
        "eat more fiber", "eat bland rice", "eat spicy food", "eat late meals", "eat more meat", "dim the lights",
        "watch screens", "do gentle stretching", "lift weights", "go running", "smoke cigarettes", "scratch the skin",
        "raise the leg", "clean the wound", "rinse with saltwater", "keep a diary", "call an ambulance", "see a doctor",
        "see a midwife", "see a pediatrician", "ask a pharmacist", "check the pressure",
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
    """What is special about the patient, in two wordings; `good` and `bad` hold for every condition of such a patient."""

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
    "migraine": _condition("a throbbing headache / pain behind one eye", "lights, diary, not screens", "screens, coffee"),
    "flu": _condition("fever and aching muscles / chills and weakness", "fluids, rest, paracetamol", "running, not rest"),
    "heartburn": _condition("burning behind the breastbone / sour burps", "antacids, not food, not meals", "food, coffee"),
    "constipation": _condition("hard stools / no stool for days", "fiber, fluids, laxatives", "iron, not fiber"),
    "anemia": _condition("pale lips / tiredness and pale hands", "iron, test, meat", "tea, not iron"),
    "asthma": _condition("wheezing / a tight chest at night", "inhaler, not cigarettes, vaccine", "cigarettes, perfume"),
    "eczema": _condition("itchy elbows / dry itchy patches", "cream, not skin, not perfume", "soap, skin"),
    "pinkeye": _condition("a red sticky eye / yellow eye crusts", "eyedrops, soap, not lenses", "lenses, not soap"),
    "sprain": _condition("a swollen ankle / a twisted ankle", "ice, leg, bandage", "running, heatpad"),
    "backache": _condition("a stiff back / back pain after gardening", "stretching, heatpad, not weights", "weights, codeine"),
    "gastritis": _condition("stomach pain / a gnawing stomach", "rice, not aspirin, not alcohol", "aspirin, alcohol"),
    "sunburn": _condition("hot red shoulders / peeling after the beach", "sunscreen, cream, fluids", "ice, not sunscreen"),
    "sinusitis": _condition("a blocked nose / pressure in the cheeks", "steam, spray, paracetamol", "cigarettes, not steam"),
    "tonsillitis": _condition("a sore throat / pain when swallowing", "saltwater, honey, rest", "cigarettes, food"),
    "cough": _condition("a tickly cough / coughing all night", "honey, steam, not cigarettes", "cigarettes, codeine"),
    "diarrhea": _condition("watery stools / loose stools all day", "salts, rice, not milk", "laxatives, milk"),
    "insomnia": _condition("no sleep / lying awake for hours", "diary, not coffee, not screens", "coffee, alcohol"),
    "gout": _condition("a hot swollen toe / a painful red toe", "ice, leg, not alcohol", "meat, alcohol"),
    "infarction": _condition("crushing chest pain / chest pain in the arm", "ambulance, aspirin, not running", "running, antacids"),
    "cut": _condition("a bleeding finger / a deep scratch", "wound, bandage, vaccine", "perfume, not bandage"),
}  # fmt: skip

MODIFIERS = {
    "adult": Modifier(("I am healthy.", "I take no medicines."), _statements("doctor, vitamins"), _statements("not doctor")),
    "pregnant": Modifier(
        ("I am pregnant.", "I expect a baby."), _statements("midwife, not ibuprofen"), _statements("ibuprofen")
    ),
    "child": Modifier(
        ("I am six years old.", "I am a child."), _statements("pediatrician, not codeine"), _statements("codeine")
    ),
    "allergy": Modifier(
        ("I have a penicillin allergy.", "I cannot have penicillin."),
        _statements("pharmacist, not penicillin"),
        _statements("penicillin"),
    ),
    "kidney": Modifier(
        ("I have kidney disease.", "My kidneys are weak."), _statements("pressure, not naproxen"), _statements("naproxen")
    ),
}

# One patient wording each; {symptom} and {modifier} are filled in. A list of several texts alternates user and assistant.
PATIENTS = (
    ("I have {symptom}. {modifier} What should I do?",),
    ("{modifier} Since yesterday I have {symptom}. Tell me whom to see.",),
    ("Please help me with {symptom}. {modifier}",),
    ("Hello, I need advice.", "What is wrong?", "It is {symptom}. {modifier}"),
)

_SENTENCES = {
    "do": ("{phrase}.", "You should {phrase}.", "It helps to {phrase}."),
    "not": ("Do not {phrase}.", "You should not {phrase}.", "Never {phrase}."),
    "is": ("This sounds like {key}.", "It may be {key}."),
    "wish": ("I hope you feel better soon.", "I wish you well."),
}

_CRITERIA = {
    "do": ("Advises the patient to {phrase}", "Recommends {key}"),
    "not": ("Advises the patient not to {phrase}", "Warns against {key}"),
    "is": ("Says that it sounds like {key}", "Names {key} as the likely cause"),
    "wish": ("Says that it hopes the patient will feel better soon", "Wishes the patient well"),
}

STATEMENTS: tuple[Statement, ...] = (
    *((kind, key) for key in ADVICE for kind in ("do", "not")),
    *(("is", name) for name in CONDITIONS),
    ("wish", "well"),
)


def sentences(statement: Statement) -> tuple[str, ...]:
    """Every whole sentence that states `statement`."""
    kind, key = statement
    texts = (frame.format(phrase=ADVICE.get(key, ""), key=key) for frame in _SENTENCES[kind])
    return tuple(text[0].upper() + text[1:] for text in texts)


def criteria(statement: Statement) -> tuple[str, ...]:
    """Every wording of the criterion that an answer makes `statement`."""
    kind, key = statement
    return tuple(frame.format(phrase=ADVICE.get(key, ""), key=key) for frame in _CRITERIA[kind])
