"""What the page calls the things it shows: photos, texts, rows of a table, or several kinds of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Phrases:
    thing: str
    things: str
    predictions: str  # title of the model's answers
    drawn: str  # what is done with the answer of a method
    scales: str  # how to read the answers beside each other
    shown: str  # what a method's answer is called
    fault: str  # what a refusal is no fault of
    inside: str  # why what moves the model proves nothing about the world
    page: str
    rough: tuple[str, str]  # what is least to be believed: title, sentence
    choices: str


PHOTO = Phrases(
    thing="photo",
    things="photos",
    predictions="What the model thinks it is",
    drawn="draws the answer over the picture that the model saw",
    scales="Each map has its own colour scale, because magnitude matters: a strong colour in one map may be a smaller number than a pale one in another. "
    "Read the numbers on the scales. The digits on a map mark its strongest parts, listed below it.",
    shown="map",
    fault="picture",
    inside="that a region matters to it does not make it matter to the thing in the photo",
    page="Each page is about one picture and one question",
    rough=("Not that the outline is exact", "A map is as coarse as its method's parts: boxes, regions, or a layer's feature map"),
    choices="Size of the parts, what stands in for a hidden part, number of samples and seed change the map; they are listed under each one",
)
TEXT = Phrases(
    thing="text",
    things="texts",
    predictions="What the model answers",
    drawn="colours the words by their part in the answer",
    scales="Each text has its own colour scale, because magnitude matters: a strong colour in one may be a smaller number than a pale one in another. "
    "Read the numbers on the scales.",
    shown="coloured text",
    fault="text",
    inside="that a word matters to it does not make it matter to what the text is about",
    page="Each section is about one text and one question",
    rough=(
        "Not that a word works alone",
        "Words are taken out of their sentences, and what is left may be like nothing that the model was trained on",
    ),
    choices="How the text is cut, what stands in for a missing word, number of samples and seed change the numbers; they are listed under each method",
)
ROW = Phrases(
    thing="row",
    things="rows",
    predictions="What the model answers",
    drawn="draws what each column adds to the answer",
    scales="Each picture has its own scale, because magnitude matters: a long bar in one may be a smaller number than a short one in another. "
    "Read the numbers on the axes.",
    shown="picture",
    fault="row",
    inside="that a column matters to it does not make it a cause of anything outside",
    page="Each section is about one row and one question",
    rough=("Not that columns vary freely", "Methods mix the values of different rows, and so ask the model about some that could not exist"),
    choices="The background rows, bins, number of samples and seed change the numbers; they are listed under each method",
)
WHOLE = replace(
    ROW,
    drawn="shows what each column adds to the answers",
    page="The pictures are about the rows of this table; rows of other people, places or years may be answered for other reasons",
)
ANY = Phrases(
    thing="input",
    things="inputs",
    predictions="What the model answers",
    drawn="shows the answer on what the model was given",
    scales="Each picture has its own scale, because magnitude matters: a strong colour or a long bar in one may be a smaller number than a weak one in another. "
    "Read the numbers on the scales.",
    shown="picture",
    fault="input",
    inside="that a part matters to it does not make it matter outside",
    page="Each section is about one input and one question",
    rough=(
        "Not that the parts work alone",
        "Methods hide and mix parts, and so ask the model about inputs that may be like nothing it was trained on",
    ),
    choices="How the input is cut, what stands in for a part that is taken away, number of samples and seed change the numbers; they are listed under each method",
)
OF_KIND = {"photo": PHOTO, "text": TEXT, "row": ROW}


def of_page(kinds: Iterable[str]) -> Phrases:
    """The words that fit all cases of a page."""
    found = set(kinds)
    return OF_KIND[found.pop()] if len(found) == 1 else ANY
