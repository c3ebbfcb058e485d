"""Tell folders of people from folders of classes: a patient's name that is taken for a class stands in every record.

Only counts and names are looked at, and no message repeats a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medvision.data.folders import VIEW
from medvision.data.sources import without_suffix
from medvision.errors import DataInvalid

# Classes have examples: ten folders of less than four images each are cases. Tables are held to the same.
_MANY, _FEW_IMAGES = 10, 4
# A class of views in folders is known by its size, and so is one of two capital words (Mild_Demented, Lung Opacity).
_SMALL_CLASS, _SEVERAL = 20, 5

_VIEWS = re.compile(rf"{VIEW}[-_ ]?\d{{0,2}}", re.IGNORECASE)
_TWO_WORDS = re.compile(r"[A-Z][a-z'’]+(?:[_ .-][A-Z]\.?)?[_ .-](?:Mc|Mac|O')?[A-Z][a-z'’-]+[-_ ]?\d*")
_LAST_FIRST = re.compile(r"[^\W\d_][\w' -]*(?:, ?|\^)[^\W\d_][\w' .^-]*")
# Frequent given names of many countries, but for those that are words of medicine as well (rose, mark, grace, iris).
_GIVEN = frozenset(
    [
        "ahmed",
        "aisha",
        "alexander",
        "ali",
        "amit",
        "ana",
        "andrea",
        "andrew",
        "anil",
        "anita",
        "anna",
        "anne",
        "anthony",
        "antonio",
        "barbara",
        "carlos",
        "carmen",
        "carol",
        "catherine",
        "charles",
        "chen",
        "chloe",
        "christopher",
        "claudia",
        "daniel",
        "david",
        "deborah",
        "diego",
        "dmitri",
        "donald",
        "dorothy",
        "edward",
        "elena",
        "elizabeth",
        "emily",
        "emma",
        "fatima",
        "francesco",
        "francisco",
        "george",
        "giovanni",
        "giulia",
        "hans",
        "hassan",
        "helen",
        "henry",
        "hiroshi",
        "ibrahim",
        "igor",
        "ivan",
        "jack",
        "jacob",
        "james",
        "jan",
        "jane",
        "janet",
        "jean",
        "jennifer",
        "jessica",
        "jesus",
        "joan",
        "joao",
        "johannes",
        "john",
        "jorge",
        "jose",
        "joseph",
        "juan",
        "julia",
        "karen",
        "karl",
        "katarzyna",
        "katherine",
        "kenji",
        "kevin",
        "kim",
        "klaus",
        "krzysztof",
        "laura",
        "lena",
        "linda",
        "lisa",
        "lucas",
        "lucia",
        "luis",
        "maria",
        "marie",
        "mario",
        "martin",
        "mary",
        "matthew",
        "mehmet",
        "michael",
        "michel",
        "mohamed",
        "mohammad",
        "mohammed",
        "muhammad",
        "natalia",
        "nguyen",
        "nicole",
        "nikolai",
        "olga",
        "oliver",
        "omar",
        "patricia",
        "paul",
        "paulo",
        "pedro",
        "peter",
        "philip",
        "pierre",
        "priya",
        "rachel",
        "rahul",
        "rajesh",
        "richard",
        "robert",
        "roberto",
        "ryan",
        "samuel",
        "sandra",
        "sara",
        "sarah",
        "sergei",
        "sofia",
        "sophie",
        "stefan",
        "stephen",
        "steven",
        "susan",
        "svetlana",
        "takashi",
        "thomas",
        "tomasz",
        "ursula",
        "victoria",
        "vladimir",
        "wang",
        "wei",
        "william",
        "wolfgang",
        "yuki",
        "yusuf",
    ]
)


def refuse_people(root: Path, paths: Sequence[str], level: int) -> None:
    """Raise DataInvalid if the folders at a depth of the paths look like people or cases rather than like classes."""
    inside: dict[str, list[str]] = {}
    for path in paths:
        parts = path.split("/")
        if len(parts) > level + 1:
            inside.setdefault(parts[level], []).append("/".join(parts[level + 1 :]))
    signs = _signs(inside) if len(inside) > 1 else []
    if not signs:
        return
    pattern = f"'^{'[^/]+/' * level}([^/]+)/'"
    raise DataInvalid(
        f"The {len(inside)} folders of images in {root} look like people or cases, not like classes: "
        f"{'; '.join(signs)}. A class would be written, by its name, into every record. Say the class of each image "
        f"in a table (--labels FILE.csv), and that a folder is a patient by --patient-pattern {pattern}. If they are "
        f"classes after all, add --label-pattern {pattern}."
    )


def _signs(inside: Mapping[str, Sequence[str]]) -> list[str]:
    n, mean = len(inside), sum(map(len, inside.values())) / len(inside)
    signs = []
    if n >= _MANY and mean < _FEW_IMAGES:
        signs.append(f"they hold {mean:.1f} images each")
    if _hold_views(inside, mean):
        signs.append("each holds the same views")
    named = sum(_is_named(folder) for folder in inside)
    if 2 * named >= n or (n >= _SEVERAL and mean < _SMALL_CLASS and all(map(_TWO_WORDS.fullmatch, inside))):
        signs.append("they are called as people are")
    return signs


def _hold_views(inside: Mapping[str, Sequence[str]], mean: float) -> bool:
    """Tell whether all folders hold the same views: as images, or as folders if there are several with few images."""
    held = {frozenset(without_suffix(name.partition("/")[0]) for name in names) for names in inside.values()}
    if len(held) > 1 or not all(map(_VIEWS.fullmatch, next(iter(held)))):
        return False
    are_images = not any("/" in name for names in inside.values() for name in names)
    return are_images or (len(inside) >= _SEVERAL and mean < _SMALL_CLASS)


def _is_named(folder: str) -> bool:
    words = re.split(r"[\W\d_]+", folder.casefold())
    return bool(_LAST_FIRST.fullmatch(folder)) or (len(words) > 1 and not _GIVEN.isdisjoint(words))
