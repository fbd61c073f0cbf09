"""The texts of `creatives`: a lexicon of pseudo-words, texts drawn of it, and what they are worth.

Words are stems with endings, and words of one stem are worth much the same. Some are pitch words,
used in every genre: a tenth of the lexicon has a loading for appeal, a twentieth for fatigue.
Others belong to a topic; topics fall into four groups, and the group that has most words in a text
is its theme. Order counts: a negator turns the sign of the word after it, and two pairs of
words add to the appeal in one order and not in the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtl_jax.data.recommendation.draws import Draws
from mtl_jax.data.survival.sampling import normal

TITLE, DESCRIPTION = (5, 10), (12, 30)  # Least and greatest number of words.
GROUPS = 4
VARIANTS = 3  # Topics in a group; which of them a text has depends on the genre.
NEGATOR = 1
PAIRS = ((2, 3), (4, 5))
PAIR_BONUS = 1.6
_NEGATED, _APPEAL, _FATIGUE = 0.05, 0.25, 0.12  # Shares of the words of a text.
_PAIR_CHANCE = 0.4  # that a text has a pair, in either order.
_ON_TOPIC = 0.65  # of the words with a topic.
_FUNCTION_WORDS = ("", "zun", "vela", "mori", "suda", "peko")
_ENDINGS = ("", "a", "en", "ix", "or", "usta", "ette", "ing", "ola", "ish")
_STEMS = {"appeal": 20, "fatigue": 10, "topics": GROUPS * VARIANTS * 14}
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeiou"


class Lexicon(NamedTuple):
    """All words.

    Attributes:
      words: V strings; words[0] is "", `NEGATOR` and `PAIRS` are places in it.
      appeal: [V] float64, 0 for most.
      fatigue: [V] float64, 0 for most.
      group: [V] int, the group of the word's topic; -1 for words without.
      pools: {"appeal" or "fatigue": words, the most frequent first}.
      topics: [GROUPS, VARIANTS, W] words, the most frequent first.
    """

    words: tuple[str, ...]
    appeal: np.ndarray
    fatigue: np.ndarray
    group: np.ndarray
    pools: dict[str, np.ndarray]
    topics: np.ndarray


def make_lexicon(seed: int) -> Lexicon:
    """Returns the words of a world, a function of the seed."""
    draws = Draws(seed, 11)
    parts = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
    sizes = [len(part) for part in parts]
    # Stems have one length, so that no two of them with endings make the same word.
    chosen = np.argsort(draws.uniform(int(np.prod(sizes))), kind="stable")[: sum(_STEMS.values())]
    places = np.stack(np.unravel_index(chosen, sizes), 1)
    stems = ["".join(part[i] for part, i in zip(parts, row, strict=True)) for row in places]
    words = (*_FUNCTION_WORDS, *(stem + ending for stem in stems for ending in _ENDINGS))

    loadings = {name: np.zeros(len(words)) for name in ("appeal", "fatigue")}
    pools, first = {}, len(_FUNCTION_WORDS)
    for name, loading in loadings.items():
        count = _STEMS[name] * len(_ENDINGS)
        order = np.argsort(draws.uniform(count), kind="stable")
        shared = np.repeat(normal(draws, _STEMS[name]), len(_ENDINGS))
        value = 0.8 * shared + 0.6 * normal(draws, count)
        share = np.empty(count)
        share[order] = _shares(count)
        value -= share @ value
        loading[first : first + count] = value / np.sqrt(share @ value**2)
        pools[name] = first + order
        first += count
    in_topic = (len(words) - first) // (GROUPS * VARIANTS)
    topics = np.argsort(draws.uniform(GROUPS, VARIANTS, in_topic), axis=-1, kind="stable")
    topics += first + np.arange(GROUPS * VARIANTS).reshape(GROUPS, VARIANTS, 1) * in_topic
    group = np.full(len(words), -1)
    group[first:] = np.arange(len(words) - first) // (in_topic * VARIANTS)
    return Lexicon(words, loadings["appeal"], loadings["fatigue"], group, pools, topics)


def draw_texts(
    lexicon: Lexicon, genre: np.ndarray, genres: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns titles [N, 10] and descriptions [N, 30], int32 words.

    The genre says which topics of a group are likely, and nothing of the group or of pitch words.

    Args:
      lexicon: of the world.
      genre: [N] int, in 0..genres-1.
      genres: how many there are.
      seed: of the draws.
    """
    draws, rows = Draws(seed, 12), len(genre)
    columns = TITLE[1] + DESCRIPTION[1]
    lengths = [
        least + draws.integers(most - least + 1, rows) for least, most in (TITLE, DESCRIPTION)
    ]
    taste = np.exp(1.5 * normal(draws, genres, VARIANTS))
    taste = np.cumsum(taste / taste.sum(1, keepdims=True), 1)[genre]

    def topic(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        likely = taste.reshape(rows, *(1,) * (len(shape) - 1), VARIANTS)
        variant = (draws.uniform(*shape)[..., None] >= likely[..., :-1]).sum(-1)
        return draws.integers(GROUPS, *shape), variant

    main = topic(rows)
    other = topic(rows, columns)
    on_topic = draws.uniform(rows, columns) < _ON_TOPIC
    group, variant = (np.where(on_topic, m[:, None], o) for m, o in zip(main, other, strict=True))
    words = lexicon.topics[group, variant, _ranks(draws, lexicon.topics.shape[-1], rows, columns)]
    kind = draws.uniform(rows, columns)
    limit = _NEGATED
    words[kind < limit] = NEGATOR
    for name, share in (("appeal", _APPEAL), ("fatigue", _FATIGUE)):
        pool = lexicon.pools[name]
        pitch = pool[_ranks(draws, len(pool), rows, columns)]
        words = np.where((kind >= limit) & (kind < limit + share), pitch, words)
        limit += share
    # A pair in each half of the description, so that none is written over.
    half = lengths[1] // 2
    every = np.arange(rows)
    for number, pair in enumerate(PAIRS):
        has, first = draws.uniform(rows) < _PAIR_CHANCE, draws.integers(2, rows)
        place = TITLE[1] + number * half + (draws.uniform(rows) * (half - 1)).astype(int)
        for step in (0, 1):
            words[every[has], place[has] + step] = np.array(pair)[first ^ step][has]
    texts = np.split(words, [TITLE[1]], axis=1)
    real = [np.arange(text.shape[1]) < n[:, None] for text, n in zip(texts, lengths, strict=True)]
    title, description = (
        np.where(r, text, 0).astype(np.int32) for r, text in zip(real, texts, strict=True)
    )
    return title, description


def text_sums(lexicon: Lexicon, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the appeal and the fatigue of a text, each [N] float64.

    Args:
      lexicon: of the world.
      words: [N, L], in order.
    """
    sign = np.ones(words.shape)
    sign[:, 1:][words[:, :-1] == NEGATOR] = -1
    appeal, fatigue = (
        (sign * loading[words]).sum(1) for loading in (lexicon.appeal, lexicon.fatigue)
    )
    for first, second in PAIRS:
        found = (words[:, :-1] == first) & (words[:, 1:] == second)
        appeal += PAIR_BONUS * found.sum(1)
    return appeal, fatigue


def theme_group(lexicon: Lexicon, words: np.ndarray) -> np.ndarray:
    """Returns the group [N] that has most words in a text [N, L]; of equals the first."""
    group = lexicon.group[words]
    return np.stack([(group == g).sum(1) for g in range(GROUPS)], 1).argmax(1)


def _shares(count: int) -> np.ndarray:
    """Frequencies of words by rank, after Zipf and Mandelbrot."""
    weights = 1 / (np.arange(count) + 8.0)
    return weights / weights.sum()


def _ranks(draws: Draws, count: int, *shape: int) -> np.ndarray:
    places = np.searchsorted(np.cumsum(_shares(count)), draws.uniform(*shape), side="right")
    return np.minimum(places, count - 1)
