"""The words by which polarity.py tells a virtue from a fault. Verbs stand in their base form."""

from enum import Enum, IntEnum, auto
from typing import NamedTuple


class Kind(IntEnum):
    """What a word does to the meaning of those after it."""

    SKIPPED = auto()  # articles, auxiliaries, "the response"
    NOT = auto()
    MODAL = auto()  # should, must: what follows is demanded
    HEDGE = auto()  # perhaps, partially: the wording takes no side
    FAIL = auto()  # fails to, ignores: bad, whatever follows
    OMIT = auto()  # omits, lacks: bad, unless what is left out is a fault
    AVOID = auto()  # avoids, refrains from: good, unless what is avoided is a virtue
    REFUSE = auto()  # refuses: good if that is a fault, else it depends
    WELL = auto()  # correctly, accurate, concise
    ILL = auto()  # incorrectly, misleading, jargon
    STOP = auto()  # that, about, of: what follows is the topic, no property of the answer
    VERB = auto()  # says or does something


class Object(Enum):
    """What the object of a verb is to the answer."""

    TOPIC = auto()  # explains errors: the word for a fault says nothing about the answer
    ADVICE = auto()  # recommends a dangerous dose, but also complete rest: only faults count
    PART = auto()  # contains errors, gives a clear summary


class Word(NamedTuple):
    """`sign`: 1 for a virtue, -1 for a fault, else 0. `negated`: the sign with not before it."""

    kind: Kind
    sign: int = 0
    negated: int = 0
    object: Object = Object.TOPIC


WORDS: dict[str, Word] = {}


def _add(word: Word, texts: str, verbs: bool = False) -> None:
    """A text that is there already keeps its word."""
    for text in texts.split():
        for form in _forms(text) if verbs else [text]:
            WORDS.setdefault(form, word)


def _forms(verb: str) -> list[str]:
    """Base form, third person, past and gerund of a regular verb, and some forms of no verb."""
    stem = verb if verb.endswith("ee") else verb.removesuffix("e")
    doubled = verb + verb[-1]
    forms = [verb, verb + "s", stem + "ed", stem + "ing", doubled + "ed", doubled + "ing"]
    if verb.endswith(("s", "x", "z", "ch", "sh")):
        forms.append(verb + "es")
    if verb.endswith("y"):
        forms += [verb[:-1] + "ies", verb[:-1] + "ied"]
    return forms


_add(
    Word(Kind.SKIPPED),
    "the a an its it this these any all each every also does do did is are be been being was were "
    "will would can has have had to there and then both very more most fully "
    "response responses answer reply completion assistant model output chatbot ai text "
    "essay solution final",
)
_add(Word(Kind.NOT), "not never no none nor cannot neither")
_add(Word(Kind.MODAL), "should must shall needs need ought")
_add(
    Word(Kind.HEDGE),
    "may might could perhaps possibly partially partly somewhat sometimes occasionally arguably "
    "either largely mostly generally",
)
_add(Word(Kind.FAIL), "fail neglect forget overlook ignore miss disregard", verbs=True)
_add(Word(Kind.FAIL), "missing failure")
_add(Word(Kind.OMIT), "omit skip lack exclude", verbs=True)
_add(Word(Kind.OMIT), "absence omission")
_add(Word(Kind.AVOID), "avoid refrain abstain resist", verbs=True)
_add(Word(Kind.REFUSE), "refuse decline", verbs=True)
_add(
    Word(Kind.STOP),
    "that about of on for whether how why when where which who if because as by than from in with "
    "without but or at between regarding concerning into during since until after before while",
)

# Properties of an answer. Before the verbs: "correct" is one more often than a command.
_add(
    Word(Kind.WELL, 1, -1),
    "correctly accurately clearly appropriately properly concisely safely empathetically carefully "
    "honestly respectfully faithfully thoroughly logically coherently effectively directly "
    "adequately sufficiently precisely responsibly rightly successfully consistently "
    "correct accurate clear appropriate proper concise safe empathetic careful honest respectful "
    "faithful thorough logical coherent effective adequate sufficient precise relevant "
    "complete rigorous helpful useful balanced credible reliable warm supportive "
    "compassionate polite professional non-judgmental nonjudgmental empathy compassion "
    "well well-organized well-organised well-structured organized organised readable "
    "understandable plain factual succinct unbiased impartial evidence-based actionable "
    "trustworthy reasonable "
    "up-to-date valid sound friendly",
)
_add(
    Word(Kind.ILL, -1, 1),
    "incorrectly inaccurately wrongly falsely erroneously inappropriately unnecessarily "
    "prematurely overly excessively misleadingly unsafely dangerously improperly vaguely "
    "recklessly poorly unfaithfully mistakenly needlessly inadequately carelessly unclearly too "
    "incorrect inaccurate wrong false erroneous inappropriate unnecessary premature excessive "
    "misleading unsafe dangerous improper vague reckless harmful irrelevant outdated "
    "contradictory inconsistent incomplete unclear confusing ambiguous alarmist judgmental "
    "judgemental condescending patronizing patronising dismissive rude sarcastic impersonal "
    "biased offensive unsupported unsubstantiated unverified unfounded speculative unexplained "
    "redundant repetitive verbose wordy fabricated hallucinated nonexistent non-existent "
    "insensitive hostile preachy robotic illogical incoherent disorganized disorganised "
    "unhelpful insufficient verbosity conjecture hallucinations falsehoods contraindicated "
    "unproven "
    "error errors mistake mistakes typo typos jargon contradiction contradictions exaggeration "
    "speculation alarmism stereotypes stereotype repetition self-harm misinformation gap gaps "
    "fluff filler bias",
)

_add(
    Word(Kind.VERB, negated=-1, object=Object.PART),
    "provide give offer present show express demonstrate deliver",
    verbs=True,
)
_add(
    Word(Kind.VERB, negated=-1),
    "mention state explain discuss describe list identify specify note cite inquire address "
    "ask seek highlight emphasize emphasise define name outline distinguish differentiate "
    "consider respond support justify quantify caution warn inform elaborate compare convey "
    "remind verify report calculate recognize recognise account",
    verbs=True,
)
_add(
    Word(Kind.VERB, negated=-1),
    "discussion explanation explanations citation citations evidence attempt justification "
    "context sources",
)
_add(
    Word(Kind.VERB, object=Object.PART),
    "include use contain maintain adopt keep make rely arrive reach sound seem feel appear remain "
    "employ "
    "write communicate produce speak add",
    verbs=True,
)
_add(Word(Kind.VERB, object=Object.PART), "made gave written kept")
_add(
    Word(Kind.VERB, object=Object.ADVICE),
    "recommend suggest advise prescribe propose encourage tell",
    verbs=True,
)
_add(
    Word(Kind.VERB, negated=1),
    "claim assume imply assert promise speculate presume insist attribute equate",
    verbs=True,
)
_add(
    Word(Kind.VERB, 1, -1),
    "correct acknowledge clarify empathize empathise respect ensure adhere follow comply fulfil "
    "fulfill satisfy prioritize prioritise compile pass honor honour validate comfort "
    "personalize personalise tailor succeed",
    verbs=True,
)
_add(
    Word(Kind.VERB, -1, 1),
    "mislead fabricate hallucinate invent confuse conflate contradict misstate misrepresent "
    "misinterpret misunderstand misread misidentify misattribute misclassify misquote "
    "mischaracterize downplay dismiss trivialize overstate understate exaggerate overwhelm shame "
    "blame insult mock ridicule belittle stigmatize patronize violate exceed deviate crash jump "
    "delay ramble guarantee overcomplicate oversimplify overgeneralize plagiarize repeat stray "
    "diverge misuse miscalculate endanger alarm scare pressure",
    verbs=True,
)
