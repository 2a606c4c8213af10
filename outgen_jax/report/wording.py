"""Texts of the page that depend on the kind of the network's outputs."""

import html

import numpy as np

from outgen_jax.report.run import SynthesisRun
from outgen_jax.report.shown import unit

_ANSWERS = {
    "distribution": "a probability for every class",
    "labels": "a probability for each label",
    "numbers": "numbers",
}
_NAMED = {"distribution": "classes", "labels": "labels", "numbers": "numbers"}
_PRESCRIBED = {
    "distribution": "Its whole answer was prescribed, not only which class comes first but every probability,",
    "labels": "Its whole answer was prescribed, a probability for each label,",
    "numbers": "Its answer was prescribed, number by number,",
}
_MEASURES = {
    "total variation": "The share of probability that sits on the wrong classes: 0 is exactly as asked, 1 has nothing "
    "in common with it.",
    "largest error of a probability": "The difference between wanted and reached of the label that is farthest off: 0 "
    "is exactly as asked.",
    "RMS error": "The root of the mean squared difference between wanted and reached numbers: 0 is exactly as asked.",
}
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_KL = "The Kullback-Leibler divergence, KL, is another measure of the gap."
_FREE = {
    "distribution": "A class without a target of its own. The free classes share what the others leave.",
    "labels": "A label without a target.",
    "numbers": "A number without a target.",
}


def who(run: SynthesisRun) -> str:
    """What the page calls the network."""
    is_classifier = _forms(run) == ["distribution"] and len(_networks(run)) == 1
    return "classifier" if is_classifier else "network"


def lede(run: SynthesisRun) -> str:
    """The first sentences of the page."""
    outputs, views = len(_networks(run)), _most_views(run)
    seen = f" in {_counted(views)} views" if views > 1 else ""
    answers = " and ".join(_ANSWERS[form] for form in _forms(run))
    if outputs > 1:
        answers = f"{_counted(outputs)} outputs: {answers}"
    return (
        f"A {who(run)} looks at an image{seen} and answers with {answers}. Here the answer came first: each image was "
        f"changed to make the {who(run)} say exactly that."
    )


def prescribed(run: SynthesisRun) -> str:
    """What was asked for, up to a comma."""
    if len(run.parts) == 1:
        found = run.parts[0].kind.form
        if _has_free(run, found):
            return f"What it says of the named {_NAMED[found]} was prescribed,"
        return _PRESCRIBED[found]
    several = {"outputs": len(_networks(run)), "views": _most_views(run)}
    over = [f"{_all_of(count)} {name}" for name, count in several.items() if count > 1]
    return f"Its answer was prescribed in {' and '.join(over)} at once,"


def distance_to_target(run: SynthesisRun) -> str:
    """What the distance of the run is called: the measure of its kind, and over what it is the largest."""
    name = measure(run)
    if name in ("distance", "total variation"):
        name += " to the target"
    if len({part.kind for part in run.parts}) == 1 and unit(run.parts[0].kind):
        name += f" {unit(run.parts[0].kind)}"
    if len(_networks(run)) > 1:
        return f"{name}, worst output"
    return f"{name}, worst view" if len(run.parts) > 1 else name


def measure(run: SynthesisRun) -> str:
    """The measure of the distance in few words."""
    measures = {part.kind.measure for part in run.parts}
    return measures.pop() if len(measures) == 1 else "distance"


def key(run: SynthesisRun) -> str:
    """What the signs in the gallery mean: entries of a definition list."""
    forms, entries = _forms(run), []
    if forms != ["numbers"]:
        entries += [
            (_track("wanted", "width:70%"), "The outline is the probability that was wanted."),
            (
                _track("reached", "width:70%"),
                "The filled bar is what the saved image reached. If it fills the outline, the target is met.",
            ),
            (_track("before", "left:30%"), f"The tick is what the {who(run)} said of the source."),
        ]
    if "numbers" in forms:
        entries.append(
            (
                "Source, wanted, reached",
                f"What the {who(run)} said of the source, what was wanted, and what the saved image reached.",
            )
        )
    free = [_FREE[name] for name in forms if _has_free(run, name)]
    if free:
        entries.append(("Free", " ".join(free)))
    for name in dict.fromkeys(part.kind.measure for part in run.parts):
        text = _MEASURES.get(name, "How far an answer is from its target.")
        if len(run.parts) == 1 and forms == ["distribution"]:
            text += f" {_KL}"
        entries.append((html.escape(sentence_case(name)), text))
    if len(run.parts) > 1:
        entries.append(("Several at once", "The distance of an image is the largest of all."))
    return "".join(f"<dt>{sign}</dt>\n<dd>{text}</dd>\n" for sign, text in entries)


def sentence_case(text: str) -> str:
    """The text with a capital at its start."""
    return text[:1].upper() + text[1:]


def searched(run: SynthesisRun) -> str:
    """What a reader may look for."""
    forms = _forms(run)
    return (
        {"distribution": "class", "labels": "label", "numbers": "number"}[forms[0]]
        if len(forms) == 1
        else "entry"
    )


def chosen_answers(run: SynthesisRun) -> str:
    """What images can be made with for training."""
    return "a chosen mixture of classes" if who(run) == "classifier" else "chosen answers"


def _track(sign: str, style: str) -> str:
    return f'<span class="track" aria-hidden="true"><i class="{sign}" style="{style}"></i></span>'


def _counted(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else str(number)


def _all_of(number: int) -> str:
    return "both" if number == 2 else f"all {_counted(number)}"


def _forms(run: SynthesisRun) -> list[str]:
    return list(dict.fromkeys(part.kind.form for part in run.parts))


def _networks(run: SynthesisRun) -> list[str]:
    return list(dict.fromkeys(part.network for part in run.parts))


def _most_views(run: SynthesisRun) -> int:
    names = [part.network for part in run.parts]
    return max(names.count(name) for name in names)


def _has_free(run: SynthesisRun, name: str) -> bool:
    parts = [part for part in run.parts if part.kind.form == name]
    return any(bool(np.isnan(part.wanted).any()) for part in parts)
