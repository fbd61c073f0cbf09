"""What words and pixels tell, and what they hide."""

import numpy as np
import pytest

from mtl_jax.data.survival.creatives import FAITHFUL, generate
from mtl_jax.data.survival.creatives_image import draw_latents, image_sums, render
from mtl_jax.data.survival.creatives_text import (
    GROUPS,
    NEGATOR,
    PAIR_BONUS,
    PAIRS,
    make_lexicon,
    text_sums,
    theme_group,
)

SEED = 6


@pytest.fixture(scope="module")
def found():
    return generate(FAITHFUL._replace(creatives=4000), seed=SEED)


@pytest.fixture(scope="module")
def lexicon():
    return make_lexicon(SEED)


def explained(features, target):
    """R squared of a least-squares fit, on the half of the rows that it was not made of."""
    design = np.column_stack([features, np.ones(len(features))])
    half = len(design) // 2
    fit = np.linalg.lstsq(design[:half], target[:half], rcond=None)[0]
    error = target[half:] - design[half:] @ fit
    return 1 - error.var() / target[half:].var()


def standardised(values):
    return (values - values.mean()) / values.std()


def test_lexicon(lexicon, found):
    assert found.words == lexicon.words
    assert len(set(lexicon.words)) == len(lexicon.words)
    assert 1900 <= len(lexicon.words) <= 2100
    assert np.mean(lexicon.appeal != 0) == pytest.approx(0.10, abs=0.005)
    assert np.mean(lexicon.fatigue != 0) == pytest.approx(0.05, abs=0.005)
    assert not np.any((lexicon.appeal != 0) & (lexicon.fatigue != 0))
    # Words of one stem are worth much the same.
    loaded = np.flatnonzero(lexicon.appeal)
    stems = np.array([lexicon.words[w][:5] for w in loaded])
    within = np.mean([lexicon.appeal[loaded[stems == stem]].var() for stem in set(stems)])
    assert within < 0.6 * lexicon.appeal[loaded].var()


def test_lengths_of_texts(found):
    for text, least, most in zip(found.texts, (5, 12), (10, 30), strict=True):
        length = (text.words > 0).sum(1)
        assert text.words.shape[1] == length.max() == most
        assert length.min() == least
        np.testing.assert_array_equal(text.words > 0, np.arange(most) < length[:, None])


def test_latents_of_text_are_computed_from_the_words_in_their_order(found, lexicon):
    sums = np.zeros((2, len(found.time)))
    for row in range(len(found.time)):
        for text in found.texts:
            before = 0
            for word in text.words[row].tolist():
                sign = -1 if before == NEGATOR else 1
                sums[0, row] += sign * lexicon.appeal[word] + PAIR_BONUS * ((before, word) in PAIRS)
                sums[1, row] += sign * lexicon.fatigue[word]
                before = word
    for name, values in zip(("a_t", "f_t"), sums, strict=True):
        np.testing.assert_allclose(found.truth[name], standardised(values), atol=1e-5)


def test_the_order_of_words_matters(found, lexicon):
    words = np.concatenate([text.words for text in found.texts], 1)
    counts = np.zeros((len(words), len(lexicon.words)))
    np.add.at(counts, (np.arange(len(words))[:, None], words), 1)
    frequent = counts[:, 1:].sum(0) >= 10
    # All that a bag of words can tell: known loadings, and how often there are negators and pairs.
    bag = np.column_stack([counts @ lexicon.appeal, counts[:, : PAIRS[-1][-1] + 1]])
    both_words = [counts[:, a] * counts[:, b] for a, b in PAIRS]
    negated = counts[:, NEGATOR] * bag[:, 0]
    bag = np.column_stack([bag, *both_words, negated])
    appeal = found.truth["a_t"].astype(float)
    assert 0.6 < explained(bag, appeal) < 0.88
    shuffled = []
    for text in found.texts:
        rng = np.random.default_rng(0)
        key = np.where(text.words > 0, rng.random(text.words.shape), 2)
        other = np.take_along_axis(text.words, np.argsort(key, 1), 1)
        shuffled.append(text_sums(lexicon, other)[0])
    assert 0.6 < np.corrcoef(np.sum(shuffled, 0), appeal)[0, 1] < 0.92
    assert frequent.sum() > 1000


def pixel_features(image):
    """Numbers that anyone would take of an image: levels of channels, shares of dark pixels."""
    pixels = image.reshape(len(image), -1, 3).astype(float) / 255
    upper = pixels.reshape(len(image), 32, 32, 3)[:, :28].reshape(len(image), -1, 3)
    ground = np.median(upper, 1)
    dark = (upper.max(-1) < 0.25).sum(1)
    light = upper.min(-1) - ground.min(-1)[:, None]
    lift = np.quantile(light, [0.97, 0.99], axis=1).T
    bright = light > lift[:, :1] / 2
    return ground, dark, lift / (1 - ground.min(-1))[:, None], np.sqrt(bright.sum(1))


def test_pixels_depend_on_every_latent_that_counts(found):
    ground, dark, contrast, width = pixel_features(found.image)
    truth = found.truth
    assert explained(contrast, truth["contrast"]) > 0.95
    shape = np.eye(4)[truth["shape"]]
    assert explained(np.column_stack([width[:, None] * shape, shape]), truth["size"]) > 0.8
    assert explained(dark[:, None], truth["clutter"]) > 0.97
    span = ground.max(1) - ground.min(1)
    assert explained(np.column_stack([span, ground]), truth["saturation"]) > 0.95
    colour = (ground - ground.mean(1, keepdims=True)) / span[:, None]
    turn = 2 * np.pi * truth["hue"]
    for angle in (np.cos(turn), np.sin(turn)):
        assert explained(colour, angle) > 0.95
    nearest = np.argmin(np.abs((truth["hue"][:, None] * 4 - np.arange(4) + 2) % 4 - 2), 1)
    np.testing.assert_array_equal(nearest, truth["hue_group"])
    # Shapes of one size and contrast differ by what they cover.
    spread = [width[truth["shape"] == s].mean() for s in range(4)]
    assert np.ptp(spread) > 1


def test_appeal_and_fatigue_of_an_image(found):
    truth = found.truth
    dummies = np.eye(4)[truth["shape"]][:, 1:]
    appeal = np.column_stack([truth["size"], truth["contrast"], dummies])
    fatigue = np.column_stack([truth["clutter"], truth["saturation"]])
    assert explained(appeal, truth["a_i"]) > 1 - 1e-6
    assert explained(fatigue, truth["f_i"]) > 1 - 1e-6
    for features, target in ((appeal, truth["a_i"]), (fatigue, truth["f_i"])):
        for column in range(features.shape[1] if features is fatigue else 2):
            assert explained(np.delete(features, column, 1), target) < 0.75


def test_nuisance_changes_pixels_and_nothing_else():
    latents = draw_latents(np.arange(40) % GROUPS, GROUPS, 3)
    moved = latents._replace(x=latents.x + 2, turn=latents.turn + 1, bars=~latents.bars)
    for one, other in zip(image_sums(latents, 3), image_sums(moved, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    first, second = (render(each, 32, 3).astype(float) for each in (latents, moved))
    assert (np.abs(first - second).max((1, 2, 3)) > 30).all()
    noise = render(latents, 32, 4) - first
    assert noise.std() / 255 == pytest.approx(0.03 * np.sqrt(2), rel=0.05)


def test_a_larger_image_shows_the_same(found):
    latents = draw_latents(np.arange(12) % GROUPS, GROUPS, 3)
    small, large = (render(latents, pixels, 3).astype(float) for pixels in (32, 64))
    pooled = large.reshape(12, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.sqrt(((pooled - small) ** 2).mean()) / 255 < 0.05
    assert large.shape == (12, 64, 64, 3)


def test_only_text_and_image_together_tell_the_match(found, lexicon):
    truth = found.truth
    match = truth["x"] > 0
    theme = theme_group(lexicon, np.concatenate([text.words for text in found.texts], 1))
    np.testing.assert_array_equal(theme, truth["theme"])
    np.testing.assert_array_equal(match, theme == truth["hue_group"])
    assert match.mean() == pytest.approx(0.35, abs=4 * np.sqrt(0.35 * 0.65 / len(match)))
    genre = np.minimum(found.categories[0].codes, 5)
    for key in (theme, truth["hue_group"], genre * 4 + theme, genre * 4 + truth["hue_group"]):
        count, hits = np.bincount(key), np.bincount(key, match)
        error = (hits - 0.35 * count) / np.sqrt(0.35 * 0.65 * count)
        assert np.abs(error).max() < 4
