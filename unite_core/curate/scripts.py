"""Scripts and languages of texts, with how sure a guess is; few words are not judged."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

__all__ = ["LanguageGuess", "guess_languages", "is_spaceless", "script_shares", "text_weight"]


LEAST_WORDS = 4  # of a text whose language is guessed
SURE = 0.8  # least probability of a guess that counts
_SPACELESS = frozenset(
    ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "BOPOMOFO")
)
_LETTERS_OF = {"CJK": 3, "HANGUL": 3, "HIRAGANA": 2, "KATAKANA": 2}  # Latin letters that one says
_NAMES = {"CJK": "Han"}


class LanguageGuess(NamedTuple):
    """ISO 639-1 code, "" if the text says too little, and the probability of the guess."""

    code: str
    probability: float


def script_shares(texts: Sequence[str]) -> dict[str, float]:
    """Shares of the scripts among all letters, in descending order; sure for short texts, too.

    >>> script_shares(["собака", "犬", "dog"])
    {'Cyrillic': 0.6, 'Latin': 0.3, 'Han': 0.1}
    """
    counts = Counter(_script(c) for text in texts for c in text if c.isalpha())
    total = counts.total()
    return {_NAMES.get(n, n.capitalize()): c / total for n, c in counts.most_common()}


def text_weight(text: str) -> int:
    """Letters that a text would have in an alphabet: an ideograph or a Hangul block says about 3.

    Marks, digits, signs and spaces count as 1, like letters.

    >>> text_weight("富士山"), text_weight("Mount Fuji")
    (9, 10)
    """
    return sum(_LETTERS_OF.get(_script(c), 1) if c > "\u0fff" else 1 for c in text)


def is_spaceless(character: str) -> bool:
    """Whether the character's script has no spaces between words."""
    return character > "\u0dff" and _script(character) in _SPACELESS


def guess_languages(texts: Sequence[str], least_letters: int = 20) -> list[LanguageGuess]:
    """Guess the language of each text (py3langid), and how probable the guess is.

    Not judged, with code "", are texts of fewer than `least_letters` letters (`text_weight`), of
    fewer than 4 words in a script with spaces, and guesses less probable than .8: labels such as
    "melon" belong to many languages.
    """
    identify = _identify()
    return [_guess(text, least_letters, identify) for text in texts]


def _guess(text: str, least_letters: int, identify) -> LanguageGuess:
    letters = "".join(c for c in text if c.isalpha() or unicodedata.category(c)[0] == "M")
    enough = text_weight(letters) >= least_letters
    if not enough or (len(text.split()) < LEAST_WORDS and not any(map(is_spaceless, letters))):
        return LanguageGuess("", 0.0)
    code, probability = identify(text)
    return LanguageGuess(code if probability >= SURE else "", float(probability))


@lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    """First word of the character's name, such as LATIN, CYRILLIC, CJK."""
    return unicodedata.name(character, "UNKNOWN").split()[0].split("-")[0]


@cache
def _identify():
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ImportError(
            "language guesses need py3langid: pip install 'unite-workbook[curate]', or leave the "
            "language checks out"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
