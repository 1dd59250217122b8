"""Tables of symbols: which characters a model's tokens stand for, in the order of their ids.

A table is a string, one symbol a character, so that it is readable in a recipe. Its first symbol is padding and, where
a front-end wants one, the blank between all others (Kim et al. 2020, "Glow-TTS", appendix A; arXiv 2005.11129).
"""

from __future__ import annotations

from audiodiff.text.languages import language_of

PAD = "_"
PUNCTUATION = " !\"'(),-.:;?"
IPA_PUNCTUATION = ' !"(),-.:;?'
_IPA_VOWELS = "aeiouyæøœɐɑɒɔəɘɚɛɜɝɞɤɨɪɯɵɶʉʊʌʏᵻᵿɷɩʅɿʯε"
_IPA_CONSONANTS = "bcdfghjklmnpqrstvwxzçðħŋβθχɓɕɖɗɟɠɡɢɣɥɦɧɫɬɭɮɰɱɲɳɴɸɹɺɻɽɾʀʁʂʃʄʈʋʍʎʐʑʒʔʕʙʛʝʟʡʢʘǀǁǂǃˤˠ"
_IPA_MARKS = "ˈˌːˑʰʱʲʷʼ˞ˀˁ"
# In this order: syllabic, nasal, syllabic above, short, centred, voiceless, unreleased, tied, raised, dental,
# not syllabic, voiceless above.
_IPA_COMBINING = "\u0329\u0303\u030d\u0306\u0308\u0325\u031a\u0361\u031d\u032a\u032f\u030a"
IPA = (
    PAD
    + IPA_PUNCTUATION
    + "".join(dict.fromkeys(_IPA_VOWELS + _IPA_CONSONANTS + _IPA_MARKS + _IPA_COMBINING))
)
"""Phonemes as espeak-ng writes them, stress and length among them, and punctuation."""


def graphemes(language: str = "en") -> str:
    """Returns the table of the language's letters and of punctuation.

    Raises:
        InputError: an unknown language.
    """
    return PAD + PUNCTUATION + language_of(language).letters
