"""Options for public logs; `preset(name, path)` returns them, `dataclasses.replace` changes them.

Splits and tasks are ours unless said otherwise. The logs are their owners'; none is shipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mtl_jax.data.event_logs.options import EventLogOptions
from mtl_jax.errors import UserError, did_you_mean

# The contest of 2014: user_id, brand_id, type, day (0..122). Items are brands, time is daily.
_TMALL2014 = EventLogOptions(
    preset="tmall2014",
    item="brand_id",
    time="day",
    behaviour="type",
    behaviours=(("0", "click"), ("1", "buy"), ("2", "fav"), ("3", "cart")),
    time_unit="day",
    tasks=("buy:0d", "fav:fav+cart:0d", "deep:click>=3:0d", "revisit7:any:1-7d"),
    streams=("click", "buy", "fav+cart"),
    train=("30", "90"),
    validation=("91", "100"),
    test=("101", "115"),
)
_TMALL2014_B = dataclasses.replace(
    _TMALL2014,
    preset="tmall2014_b",
    rows="cuts",
    lookback=30,
    active=15,
    tasks=("click:0-14d", "buy:0-14d", "fav:fav+cart:0-14d"),
    train=("30", "45", "60", "75"),
    validation=("90",),
    test=("105",),
)
# Nine days are too few for splits that follow each other when labels look 24 hours ahead, so a day
# is left out after train and after validation: no label is masked and none looks into a split.
_TAOBAO = EventLogOptions(
    preset="taobao_userbehavior",
    header=("user_id", "item_id", "category", "behaviour", "timestamp"),
    behaviours=(("pv", "pv"), ("cart", "cart"), ("fav", "fav"), ("buy", "buy")),
    time_unit="s",
    utc_offset=8,
    keep=("2017-11-25", "2017-12-03"),
    item_columns=("category",),
    event_columns=("category",),
    row_behaviours=("pv",),
    tasks=("cart:24h", "fav:24h", "buy:24h"),
    features=("pair", "gap", "user", "item", "calendar"),
    train=("2017-11-25", "2017-11-28"),
    validation=("2017-11-30", "2017-11-30"),
    test=("2017-12-02", "2017-12-02"),
    min_count=5,
)
# IJCAI-15: user_log_format1.csv; month and day only.
_TMALL = EventLogOptions(
    preset="tmall",
    time="time_stamp",
    behaviour="action_type",
    behaviours=(("0", "click"), ("1", "cart"), ("2", "buy"), ("3", "fav")),
    time_unit="mmdd",
    item_columns=("cat_id", "seller_id", "brand_id"),
    event_columns=("cat_id", "seller_id", "brand_id"),
    row_behaviours=("click",),
    tasks=("cart:1d", "fav:1d", "buy:1d", "revisit:1-7d"),
    train=("2014-06-01", "2014-10-16"),
    validation=("2014-10-17", "2014-10-31"),
    test=("2014-11-01", "2014-11-11"),
    min_count=5,
)
_OTTO = EventLogOptions(
    preset="otto",
    format="jsonl",
    user="session",
    item="aid",
    time="ts",
    behaviour="type",
    events="events",
    behaviours=(("clicks", "click"), ("carts", "cart"), ("orders", "order")),
    time_unit="ms",
    utc_offset=2,
    row_behaviours=("click",),
    tasks=("cart:24h", "order:24h", "return:click:1-24h"),
    features=("pair", "gap", "user", "item", "calendar"),
    train=("2022-08-01", "2022-08-14"),
    validation=("2022-08-15", "2022-08-21"),
    test=("2022-08-22", "2022-08-28"),
    min_count=5,
)
_RETAILROCKET = EventLogOptions(
    preset="retailrocket",
    user="visitorid",
    item="itemid",
    behaviour="event",
    behaviours=(("view", "view"), ("addtocart", "cart"), ("transaction", "buy")),
    time_unit="ms",
    row_behaviours=("view",),
    tasks=("cart:24h", "buy:24h", "revisit:1-7d"),
    features=("pair", "gap", "user", "item", "calendar"),
    train=("2015-05-10", "2015-08-09"),
    validation=("2015-08-10", "2015-08-23"),
    test=("2015-08-24", "2015-09-17"),
    min_count=3,
)


# KuaiRand: exposures with their outcomes in the same line; none of these may be shown to a row.
_KUAIRAND_FLAGS = (
    ("is_click", "click"),
    ("long_view", "long_view"),
    ("is_like", "like"),
    ("is_follow", "follow"),
    ("is_comment", "comment"),
    ("is_forward", "forward"),
    ("is_hate", "hate"),
    ("is_profile_enter", "profile_enter"),
)
_KUAIRAND = EventLogOptions(
    preset="standard",
    item="video_id",
    time="time_ms",
    behaviour="",
    flags=_KUAIRAND_FLAGS,
    time_unit="ms",
    utc_offset=8,
    event_columns=("tab", "duration_ms"),
    bucketed=("duration_ms",),
    outcomes=(
        *(column for column, _ in _KUAIRAND_FLAGS),
        "play_time_ms",
        "profile_stay_time",
        "comment_stay_time",
    ),
    tasks=("click:row", "long_view:row", "like:row", "follow:row", "forward:row"),
    streams=("click", "long_view", "like", "hate"),
    features=("user", "item", "calendar"),
    train=("2022-04-08", "2022-05-02"),
    validation=("2022-05-03", "2022-05-04"),
    test=("2022-05-05", "2022-05-08"),
    min_count=3,
)
# Rows of KuaiRand-27K with a like or a hate, as published by a study of hates. Items were chosen by
# their likes, so the sign of the feedback is no task: rows are the liked ones.
_KUAIRAND_EXPLICIT = dataclasses.replace(
    _KUAIRAND,
    preset="explicit",
    flags=(
        *(pair for pair in _KUAIRAND_FLAGS if pair[1] not in ("like", "hate")),
        ("like1_hate0", "like"),
        ("like1_hate0=0", "hate"),
    ),
    event_columns=("duration_ms",),
    outcomes=(*_KUAIRAND.outcomes, "like1_hate0"),
    row_behaviours=("like",),
    tasks=("click:row", "long_view:row", "profile_enter:row", "comment:row"),
    streams=("click", "long_view", "profile_enter", "hate"),
    train=("2022-04-07", "2022-04-17"),
    validation=("2022-04-18", "2022-04-18"),
    test=("2022-04-19", "2022-04-21"),
    min_count=1,
)
# The split by whole days: labels end with the row's day, so that none leaves its split.
_TAOBAO_DAYS = dataclasses.replace(
    _TAOBAO,
    preset="taobao_userbehavior_days",
    tasks=("cart:0d", "fav:0d", "buy:0d"),
    train=("2017-11-25", "2017-12-01"),
    validation=("2017-12-02", "2017-12-02"),
    test=("2017-12-03", "2017-12-03"),
)
_KUAIRAND_USERS = (
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
_KUAIRAND_ITEMS = ("author_id", "video_type", "upload_type", "music_id", "tag*")

# {preset: (options, the file's name in a folder, as patterns)}
PRESETS: Mapping[str, tuple[EventLogOptions, tuple[str, ...]]] = {
    "tmall2014": (_TMALL2014, ("tmall2014*.csv*",)),
    "tmall2014_b": (_TMALL2014_B, ("tmall2014*.csv*",)),
    "taobao_userbehavior": (_TAOBAO, ("UserBehavior.csv*",)),
    "taobao_userbehavior_days": (_TAOBAO_DAYS, ("UserBehavior.csv*",)),
    "tmall": (_TMALL, ("user_log_format1.csv*",)),
    "otto": (_OTTO, ("train.jsonl*", "*.jsonl*")),
    "retailrocket": (_RETAILROCKET, ("events.csv*",)),
}
KUAIRAND: Mapping[str, EventLogOptions] = {
    "standard": _KUAIRAND,
    "explicit": _KUAIRAND_EXPLICIT,
}


def preset(name: str, path: str | Path) -> EventLogOptions:
    """Returns the options of preset `name` for the log at `path`, a file or its folder.

    Of "tmall", user_info_format1.csv beside the log gives the users' age and gender.

    Raises:
      UserError: unknown preset; a folder without the preset's file.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; {did_you_mean(name, PRESETS)}")
    options, patterns = PRESETS[name]
    found = Path(path).expanduser()
    if found.is_dir():
        found = _only(found, patterns)
    options = dataclasses.replace(options, path=str(found))
    users = found.with_name("user_info_format1.csv")
    if name == "tmall" and users.is_file():
        options = dataclasses.replace(
            options, users_path=str(users), user_columns=("age_range", "gender")
        )
    return options


def kuairand(manual_dir: str | Path, config: str = "standard") -> EventLogOptions:
    """Returns the options for KuaiRand's files.

    Args:
      manual_dir: a folder with log_standard*.csv and perhaps user_features*.csv and
        video_features_basic*.csv; for "explicit" with *explicit.csv* and perhaps *users.csv*, or
        that file itself.
      config: "standard" (the exposures of one of the published sizes) or "explicit".

    Raises:
      UserError: unknown config, no log.
    """
    if config not in KUAIRAND:
        raise UserError(f"unknown config {config!r} of kuairand; {did_you_mean(config, KUAIRAND)}")
    options, folder = KUAIRAND[config], Path(manual_dir).expanduser()
    if config == "explicit":
        log = _only(folder, ("*explicit.csv*",)) if folder.is_dir() else folder
        users = sorted(log.parent.glob("*users.csv*"))
        options = dataclasses.replace(options, path=str(log))
    else:
        pattern = folder / "log_standard*.csv"
        if not any(folder.glob(pattern.name)):
            raise UserError(f"{folder} holds no {pattern.name}; give the folder of KuaiRand's logs")
        users = sorted(folder.glob("user_features*.csv"))
        options = dataclasses.replace(options, path=str(pattern))
        if items := sorted(folder.glob("video_features_basic*.csv")):
            options = dataclasses.replace(
                options,
                items_path=str(items[0]),
                item_columns=_KUAIRAND_ITEMS,
                event_columns=(*options.event_columns, "author_id", "tag"),
            )
    if users:
        options = dataclasses.replace(
            options, users_path=str(users[0]), user_columns=_KUAIRAND_USERS
        )
    return options


def _only(folder: Path, patterns: tuple[str, ...]) -> Path:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{folder} holds several logs ({names}); give one by its path")
    raise UserError(f"{folder} holds no {' or '.join(patterns)}; give the log by its path")
