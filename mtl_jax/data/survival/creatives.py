"""The `creatives` generator: ad creatives, when their operator stops them, and the whole truth.

No public log holds ads with texts, images, histories and lifetimes. Here all of them are made, and
what can be known of a lifetime from any part of them is computed (`oracles`).

World. A campaign has a genre and an effect b; a creative belongs to a campaign and has a target
gender, a format, a bid, a budget, an audience, a title and a description (`creatives_text`), and an
image (`creatives_image`). Ten latent numbers follow, each with mean 0 and variance 1:

    a_t, f_t  appeal and fatigue of the words as they stand       text
    a_i, f_i  of size, contrast and shape; of clutter and colour  image
    x         whether the image's hue suits the text's theme      text and image together
    c, f_c    of genre, gender and format                         categories
    f_n       log of impressions a day per head of the audience   numbers
    b         of the campaign, e of the creative                  hidden

    q = .55 a_t + .55 a_i + .45 c + .40 x + .35 b + .60 e
    f = .55 f_t + .55 f_i + .40 f_c + .50 f_n - .25 q

Stops. On each of days t = 1..120 an operator stops a creative for one of three causes, with chances

    cut-out     sigmoid(a0 - a1 q) exp(-(t - 1) / 4)
    wear-out    sigmoid(b0 + b1 f + 1.1 log(t - 6)), from day 8 on
    background  .002

which act independently. He decides on day t by days 1..t-1: so a creative with `time` t has t - 1
whole days on record, one that is censored at t has t, and `time` > L means alive with L days on
record. Creatives begin on any day of a window of 240 days and are censored at its end or at
120 days, so the latest are seen for the shortest. In feedback mode the operator does not know
q: a1 q is a1 times the z-score, in the genre, of the smoothed click rate of the last three days
(`creatives_delivery.operator_signal`).

Delivery. Impressions a day are Poisson around a plan, a weekday and a ramp; of them clicks at a
rate .015 exp(.35 q), which from day 8 on falls the faster the higher f is; of those conversions
at a rate .03 exp(.3 q + .2 noise). Each conversion sells for the genre's value; impressions cost
the bid. The `path` of 120 days is drawn whether or not the creative was stopped: `history` is its
beginning, up to the stop.

What is hidden. Campaigns are known as groups only, never as input, so that b is as unknown in a
random split as in one by campaign. The theme is equally often each group in every genre, and a hue
suits with probability .35 whatever the theme: neither text nor image nor category tells x alone.

After Kitada, Iyatomi and Seki (Applied Sciences 12(7):3594, 2022) are the kinds of input and the
two kinds of stop, cut-out and wear-out; the formulas and constants are this package's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from mtl_jax.data.lifetimes import (
    Category,
    LifetimeSet,
    Numbers,
    Text,
    check_lifetimes,
    split_rows,
)
from mtl_jax.data.recommendation.draws import Draws
from mtl_jax.data.survival import creatives_delivery as delivery
from mtl_jax.data.survival import creatives_image as imaging
from mtl_jax.data.survival import creatives_text as texting
from mtl_jax.data.survival.creatives_world import (
    CAUSES,
    DAYS,
    MATCH_CHANCE,
    Settings,
    cause_hazards,
    check_settings,
    cut_out,
    fatigue_of,
    quality_of,
    wear_out_odds,
)
from mtl_jax.data.survival.sampling import normal

GENRES = (
    "games",
    "finance",
    "fashion",
    "beauty",
    "food",
    "travel",
    "education",
    "jobs",
    "housing",
    "media",
    "health",
    "cars",
)
GENDERS = ("all", "women", "men")
FORMATS = ("feed", "banner", "story", "native")
PER_CAMPAIGN, PER_ADVERTISER = 15, 4  # Creatives of a campaign, campaigns of an advertiser.
SPLITS_BY = ("group", "random", "time")
_GENDER_CHANCES = (0.5, 0.25, 0.25)
_NO_TARGET = 0.1  # Share of creatives whose target cost is not known.

FAITHFUL = Settings()
CONFIGS: Mapping[str, Settings] = {
    "faithful": FAITHFUL,
    # The same world with as many creatives as it takes to learn what texts and images say.
    "large": Settings(creatives=100_000),
    "easy": Settings(cut_base=-1.7, cut_slope=3.0, wear_base=-8.2, wear_slope=3.0),
    "hard": Settings(cut_base=-1.55, cut_slope=1.3, wear_base=-6.6, wear_slope=1.25),
    "feedback": Settings(feedback=True),
    "tiny": Settings(creatives=300),
}


def generate(settings: Settings, seed: int = 0, name: str = "creatives") -> LifetimeSet:
    """Returns a set of N creatives, a pure function of its arguments.

    Splits are by campaign ("group"), "random" and by start day ("time"). `value` is what a creative
    sold while it was on record. `path` is [N, 120, 4]. `truth` has, each [N] float32 unless said
    otherwise: the ten latents; q and f, float64; `hazard` [N, 4] float64, the preset (a0, a1, b0,
    b1); `stop_day` int32, 121 for later, and `stop_cause` int32, as if nothing were censored;
    `impressions_per_day`, the plan; `value_per_conversion`; `conversion_noise`; `advertiser`,
    `theme` and `hue_group` int32; of the image `size`, `contrast`, `saturation`, `hue` and int32
    `shape` and `clutter`; in feedback mode `ctr_mean` and `ctr_sd` of log click rates in the genre.

    Args:
      settings: what world to make.
      seed: of everything; another seed is another world, with other words and other tables.
      name: of the set, for messages.

    Raises:
      UserError: a setting out of its range.
    """
    check_settings(settings, seed)
    rows = settings.creatives
    draws = Draws(seed, 21)
    campaigns = rows // PER_CAMPAIGN
    group = draws.integers(campaigns, rows)
    effects = normal(draws, campaigns)
    zipf = 1 / np.arange(1.0, len(GENRES) + 1)
    zipf /= zipf.sum()
    of_campaign = np.searchsorted(np.cumsum(zipf)[:-1], draws.uniform(campaigns), side="right")
    genre = of_campaign[group]
    gender = np.searchsorted(np.cumsum(_GENDER_CHANCES)[:-1], draws.uniform(rows), side="right")
    format_ = draws.integers(len(FORMATS), rows)
    start = draws.integers(settings.window, rows)

    lexicon = texting.make_lexicon(seed)
    texts = texting.draw_texts(lexicon, genre, len(GENRES), seed)
    text_appeal, text_fatigue = np.sum([texting.text_sums(lexicon, text) for text in texts], 0)
    theme = texting.theme_group(lexicon, np.concatenate(texts, 1))
    match = draws.uniform(rows) < MATCH_CHANCE
    astray = 1 + draws.integers(texting.GROUPS - 1, rows)
    hue_group = (theme + np.where(match, 0, astray)) % texting.GROUPS
    image = imaging.draw_latents(hue_group, texting.GROUPS, seed)
    image_appeal, image_fatigue = imaging.image_sums(image, seed)
    table, fatigue_table = _tables(zipf, seed)

    worth = np.exp(np.log(20) + np.log(10) * draws.uniform(len(GENRES)))[genre]
    plan = np.exp(7 + 0.9 * normal(draws, rows))
    audience = np.exp(13 + 0.9 * normal(draws, rows))
    usual = 1000 * delivery.CLICK_RATE * delivery.CONVERSION_RATE * worth
    bid = (usual * np.exp(0.3 * normal(draws, rows) - 0.1)).astype(np.float32)
    target = worth * np.exp(0.2 * normal(draws, rows))
    target[draws.uniform(rows) < _NO_TARGET] = np.nan
    numbers = {"bid": bid, "budget": plan * bid / 1000, "audience": audience, "target_cpa": target}

    truth = {
        "a_t": _standardised(text_appeal),
        "a_i": _standardised(image_appeal),
        "c": _standardised(table[genre, gender, format_]),
        "x": (match - MATCH_CHANCE) / np.sqrt(MATCH_CHANCE * (1 - MATCH_CHANCE)),
        "b": effects[group],
        "e": normal(draws, rows),
        "f_t": _standardised(text_fatigue),
        "f_i": _standardised(image_fatigue),
        "f_c": _standardised(fatigue_table[genre, gender, format_]),
        "f_n": _standardised(np.log(plan / audience)),
        "impressions_per_day": plan,
        "value_per_conversion": worth,
        "conversion_noise": normal(draws, rows),
        "size": image.size,
        "contrast": image.contrast,
        "saturation": image.saturation,
        "hue": image.hue,
    }
    # Whatever follows is computed from rounded numbers, so that it can be computed again.
    truth = {key: values.astype(np.float32) for key, values in truth.items()}
    quality = truth["q"] = quality_of(truth)
    fatigue = truth["f"] = fatigue_of(truth, quality)
    path = delivery.draw_path(
        Draws(seed, 22),
        delivery.expected_impressions(plan, start, DAYS),
        delivery.click_rates(quality, fatigue, DAYS),
        delivery.conversion_rate(quality, truth["conversion_noise"].astype(np.float64)),
        bid,
    )

    hazard = (settings.cut_base, settings.cut_slope, settings.wear_base, settings.wear_slope)
    signal = quality[:, None]
    if settings.feedback:
        truth |= _usual_rates(quality, genre)
        counts = path.astype(np.float64)
        moments = (truth[key].astype(np.float64) for key in ("ctr_mean", "ctr_sd"))
        signal = delivery.operator_signal(counts[..., 0], counts[..., 1], *moments)
    hazards = cause_hazards(
        cut_out(signal, settings.cut_base, settings.cut_slope),
        wear_out_odds(fatigue, settings.wear_base, settings.wear_slope),
    )
    stop, cause = _stops(Draws(seed, 23), hazards)
    last = np.minimum(DAYS, settings.window - start)
    event = np.where(stop <= last, cause, 0).astype(np.int32)
    time = np.minimum(stop, last)
    days = np.where(event > 0, time - 1, time)
    recorded = np.arange(DAYS) < days[:, None]
    history = np.where(recorded[..., None], path, np.float32(0))
    whole = {
        "stop_day": stop,
        "stop_cause": cause,
        "advertiser": _advertisers(of_campaign)[group],
        "theme": theme,
        "hue_group": hue_group,
        "shape": image.shape,
        "clutter": image.clutter,
    }
    truth |= {key: values.astype(np.int32) for key, values in whole.items()}
    truth["hazard"] = np.tile(np.array(hazard, np.float64), (rows, 1))

    found = LifetimeSet(
        name=name,
        unit="day",
        causes=CAUSES,
        event=event,
        time=time.astype(np.float32),
        upper=time.astype(np.float32),
        entry=np.zeros(rows, np.float32),
        start=start.astype(np.float32),
        group=group,
        group_name="campaign",
        weight=np.ones(rows, np.float32),
        value=(history[..., 2].sum(1, dtype=np.float64) * worth).astype(np.float32),
        numbers=tuple(Numbers(k, v.astype(np.float32), "log") for k, v in numbers.items()),
        categories=tuple(
            Category(key, levels, codes.astype(np.int32))
            for key, levels, codes in (
                ("genre", GENRES, genre),
                ("gender", GENDERS, gender),
                ("format", FORMATS, format_),
            )
        ),
        texts=tuple(Text(k, w) for k, w in zip(("title", "description"), texts, strict=True)),
        words=lexicon.words,
        image=imaging.render(image, settings.image_size, seed),
        has_image=np.ones(rows, bool),
        history_names=delivery.AMOUNTS,
        history=history,
        history_days=days.astype(np.int32),
        vectors={},
        splits={how: split_rows(how, start, group, seed) for how in SPLITS_BY},
        path=path,
        truth=truth,
    )
    return check_lifetimes(found, name)


def _tables(zipf: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables of c and f_c by genre, gender and format, uncorrelated in the population.

    Effects of genre and gender are the normal scores of an order, so that they are as nearly normal
    as unequal shares allow.
    """
    draws = Draws(seed, 24)
    share = np.outer(zipf, _GENDER_CHANCES)
    made = []
    for _ in range(2):
        order = np.argsort(draws.uniform(share.size), kind="stable")
        ends = np.cumsum(share.ravel()[order])
        cells = np.empty(share.size)
        inverse = NormalDist().inv_cdf
        cells[order] = [inverse(float(p)) for p in ends - share.ravel()[order] / 2]
        place = np.argsort(draws.uniform(len(FORMATS)), kind="stable")
        of_format = (place - place.mean()) / place.std()
        made.append(0.85 * cells.reshape(share.shape)[..., None] + 0.53 * of_format)
    weights = share[..., None] / len(FORMATS)
    first, second = (table - (weights * table).sum() for table in made)
    second = second - first * (weights * first * second).sum() / (weights * first**2).sum()
    return first, second


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _usual_rates(quality: np.ndarray, genre: np.ndarray) -> dict[str, np.ndarray]:
    """Mean in the genre and standard deviation within genres of the log click rate on day 1."""
    rate = np.log(delivery.CLICK_RATE) + delivery.CLICK_SLOPE * quality
    mean = np.bincount(genre, rate) / np.maximum(np.bincount(genre), 1)
    sd = (rate - mean[genre]).std()
    return {
        "ctr_mean": mean[genre].astype(np.float32),
        "ctr_sd": np.full(len(rate), sd, np.float32),
    }


def _stops(draws: Draws, hazards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Days of the stop, DAYS + 1 for later, and its cause, 0 for later; each [N]."""
    rows = np.arange(len(hazards))
    survival = np.cumprod(1 - hazards.sum(-1), 1)
    stop = 1 + (survival > draws.uniform(len(rows), 1)).sum(1)
    own = np.cumsum(hazards[rows, np.minimum(stop, DAYS) - 1], 1)
    which = (draws.uniform(len(rows), 1) * own[:, -1:] >= own[:, :-1]).sum(1)
    return stop, np.where(stop <= DAYS, 1 + which, 0)


def _advertisers(genre: np.ndarray) -> np.ndarray:
    """The advertiser of each campaign: `PER_ADVERTISER` campaigns at most, of one genre."""
    order = np.argsort(genre, kind="stable")
    in_order = genre[order]
    begins = np.searchsorted(in_order, in_order, side="left")
    place = np.arange(len(genre)) - begins
    fresh = place % PER_ADVERTISER == 0
    found = np.empty(len(genre), np.int64)
    found[order] = np.cumsum(fresh) - 1
    return found
