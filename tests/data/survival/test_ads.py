"""Ad libraries: small files in their real layout, made here, against lifetimes made by hand."""

import csv
import datetime
import json
import lzma

import numpy as np
import pytest

from mtl_jax.data import __main__ as cli
from mtl_jax.data.lifetimes import MISSING
from mtl_jax.data.survival.google_ads import google_ads_lifetimes
from mtl_jax.data.survival.meta_ads import bounds, meta_ads_lifetimes
from mtl_jax.data.survival.snap_ads import (
    COUNTS,
    age_range,
    landing_texts,
    snap_ads_lifetimes,
)
from mtl_jax.data.survival.table_ads import AdsOptions, address_texts, weekday_and_hour
from mtl_jax.data.survival.table_builder import load_made
from mtl_jax.data.survival.table_loading import load_file
from mtl_jax.errors import UserError

SNAP = (
    "ADID",
    "CreativeUrl",
    "Currency Code",
    "Spend",
    "Impressions",
    "StartDate",
    "EndDate",
    "OrganizationName",
    "BillingAddress",
    "CandidateBallotInformation",
    "PayingAdvertiserName",
    "Gender",
    "AgeBracket",
    "CountryCode",
    "Regions (Included)",
    "Regions (Excluded)",
    "Electoral Districts (Included)",
    "Electoral Districts (Excluded)",
    "Radius Targeting (Included)",
    "Radius Targeting (Excluded)",
    "Metros (Included)",
    "Metros (Excluded)",
    "Postal Codes (Included)",
    "Postal Codes (Excluded)",
    "Location Categories (Included)",
    "Location Categories (Excluded)",
    "Interests",
    "OsType",
    "Segments",
    "Language",
    "AdvancedDemographics",
    "Targeting Connection Type",
    "Targeting Carrier (ISP)",
    "CreativeProperties",
)
LANDING = "web_view_url:https://www.vote.org/sign-up?utm_source=snap&utm_campaign=youth_vote+2020"
FIRST = datetime.datetime(2020, 9, 1)


def stamp(moment):
    return moment.strftime("%Y/%m/%d %H:%M:%SZ")


def snap_rows(rows=40):
    """Ad k starts k / 2 days after FIRST and is set to end 3.25 + k % 5 days later, or never."""
    found = []
    for k in range(rows):
        start = FIRST + datetime.timedelta(days=k / 2)
        end = start + datetime.timedelta(days=3.25 + k % 5)
        row = dict.fromkeys(SNAP, "")
        row |= {
            "ADID": f"{k:064x}",
            "CreativeUrl": f"https://www.snap.com/asset/{k}?mediaType={'mp4' if k % 3 else 'PNG'}",
            "Currency Code": "USD",
            "Spend": str(10 * k),
            "Impressions": str(1000 * k),
            "StartDate": stamp(start),
            "EndDate": "" if k % 4 == 3 else stamp(end),
            "OrganizationName": f"org {k % 8}",
            "PayingAdvertiserName": f"payer {k % 3}",
            "CandidateBallotInformation": "Vote Yes" if k % 2 else "",
            "Gender": "FEMALE" if k % 6 == 0 else "",
            "AgeBracket": ("18-34", "18+", "24-", "")[k % 4],
            "CountryCode": "united states",
            "Regions (Included)": "Ohio,North Carolina" if k % 2 else "",
            "CreativeProperties": LANDING if k % 5 else "",
        }
        found.append(row)
    return found


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def snap(path, report=lambda line: None, **options):
    return snap_ads_lifetimes(AdsOptions(path=str(path), **options), report=report)


def words_of(found, name, row):
    text = next(text for text in found.texts if text.name == name)
    return [found.words[place] for place in text.words[row] if place]


def level(found, name, row):
    category = next(category for category in found.categories if category.name == name)
    code = category.codes[row]
    return None if code == MISSING else category.levels[code]


def number(found, name):
    return next(number for number in found.numbers if number.name == name).values


def test_snap_lifetimes_end_at_the_end_or_the_snapshot(tmp_path):
    path = write(tmp_path / "ads.csv", snap_rows())
    found, sources = snap(path)
    k = np.arange(39)  # The latest ad starts at the snapshot: it has no lifetime.
    snapshot = 39 / 2
    end = np.where(k % 4 == 3, np.inf, k / 2 + 3.25 + k % 5)
    np.testing.assert_array_equal(found.event, end <= snapshot)
    np.testing.assert_allclose(found.time, np.minimum(end, snapshot) - k / 2, rtol=1e-6)
    np.testing.assert_array_equal(found.start, k / 2)
    np.testing.assert_array_equal(found.value, 10 * k)
    np.testing.assert_array_equal(found.group, k % 8)
    assert found.group_name == "organisation"
    assert tuple(found.splits) == ("random", "group", "time")
    assert sources == [
        f"{path}: 39 ads, of which {int(found.event.sum())} ended by the snapshot "
        "2020-09-20T12:00:00Z; 1 without a lifetime left out"
    ]
    later, _ = snap(path, snapshot="2020-10-30")
    assert len(later.time) == 40
    np.testing.assert_array_equal(later.event, np.arange(40) % 4 != 3)
    exact, _ = snap(path, snapshot="2020-09-04T06:00:00Z")  # The end of ad 0.
    assert (exact.event[0], exact.time[0]) == (1, 3.25)
    said = []
    early, _ = snap(path, said.append, snapshot="2020-09-06T00:00:00Z")
    np.testing.assert_array_equal(early.time, np.minimum(end, 5)[:10] - k[:10] / 2)
    assert any("ends lie after the snapshot 2020-09-06 and count as censored" in s for s in said)


def test_snap_inputs(tmp_path):
    found, _ = snap(write(tmp_path / "ads.csv", snap_rows()))
    np.testing.assert_array_equal(number(found, "age_from")[:4], [18, 18, np.nan, np.nan])
    np.testing.assert_array_equal(number(found, "age_to")[:4], [34, np.nan, 24, np.nan])
    np.testing.assert_array_equal(number(found, "regions")[:4], [0, 2, 0, 2])
    np.testing.assert_array_equal(number(found, "hour")[:4], [0, 12, 0, 12])
    assert {n.name for n in found.numbers} == {"age_from", "age_to", "hour", *COUNTS}
    assert [level(found, "weekday", row) for row in (0, 1, 2)] == ["Tue", "Tue", "Wed"]
    assert [level(found, "gender", row) for row in (0, 1)] == ["female", "all"]
    assert [level(found, "media", row) for row in (0, 1)] == ["png", "mp4"]
    assert [level(found, "attachment", row) for row in (0, 1)] == ["none", "web_view_url"]
    assert words_of(found, "landing", 1) == ["vote", "org", "sign", "up"]
    assert words_of(found, "campaign", 1) == ["snap", "youth", "vote", "2020"]
    assert words_of(found, "ballot", 1) == ["vote", "yes"]
    assert words_of(found, "places", 1) == ["ohio", "north", "carolina"]
    assert words_of(found, "landing", 0) == []
    names = [c.name for c in found.categories]
    assert not {"organisation", "payer"} & set(names)
    given, _ = snap(tmp_path / "ads.csv", advertiser=True)
    assert level(given, "organisation", 9) == "org 1"
    assert level(given, "payer", 4) == "payer 1"
    # What grows with the lifetime is no input, whatever it is called.
    other = [row | {"Spend": "7", "Impressions": "0"} for row in snap_rows()]
    changed, _ = snap(write(tmp_path / "other.csv", other))
    for one, two in zip(found.numbers, changed.numbers, strict=True):
        np.testing.assert_array_equal(one.values, two.values)
    assert found.words == changed.words


def test_snap_of_a_year_with_fewer_columns(tmp_path):
    keep = ("StartDate", "EndDate", "OrganizationName", "Spend")
    rows = [{name: row[name] for name in keep} for row in snap_rows()]
    found, _ = snap(write(tmp_path / "ads.csv", rows))
    assert [n.name for n in found.numbers] == ["hour"]
    assert found.texts == ()
    for name in keep:
        fewer = [{n: cell for n, cell in row.items() if n != name} for row in rows]
        with pytest.raises(UserError, match=f"no column '{name}'; .*known: "):
            snap(write(tmp_path / "ads.csv", fewer))


@pytest.mark.parametrize(
    ("text", "want"),
    [("18-34", (18, 34)), ("35++", (35, None)), ("17-", (None, 17)), ("", (None, None))],
)
def test_ages(text, want):
    np.testing.assert_array_equal(age_range(text), [np.nan if x is None else x for x in want])


def test_texts_of_addresses():
    assert address_texts("https://user@www.a-b.org:80/x%20y/?q=1&utm_term=pa-lal#top") == (
        "a-b.org /x y/",
        "1 pa-lal",
    )
    assert address_texts("a.com/b") == ("a.com /b", "")
    assert address_texts("http://[bad") == ("http://[bad", "")
    kind, page, values = landing_texts(
        "deep_link_uri:app://games/launch?id=3,deep_link_ios_app:https://apps.example.com/id4"
    )
    assert (kind, page, values) == ("deep_link_uri", "games /launch", "3")
    assert landing_texts("something else") == ("none", "", "")


def test_weekdays_and_hours():
    days = [datetime.datetime(2024, 2, 27 + k, 6 * k, tzinfo=datetime.UTC) for k in range(3)]
    names, hours = weekday_and_hour(np.array([day.timestamp() for day in days]))
    assert names == [day.strftime("%a") for day in days]
    np.testing.assert_array_equal(hours, [0, 6, 12])


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("StartDate", "", "column 'StartDate': ''; a date must be given in every row"),
        ("StartDate", "yesterday", "column 'StartDate': 'yesterday'; it must be a date as"),
        ("EndDate", "2020/31/12 00:00:00Z", "column 'EndDate': '2020/31/12 00:00:00Z'; it must"),
        ("Spend", "-1", "column 'Spend': '-1'; it must be 0 or more"),
        ("Spend", "much", "column 'Spend': 'much'; it must be a number"),
    ],
)
def test_bad_cells_of_snap(tmp_path, column, cell, message):
    rows = snap_rows()
    rows[6][column] = cell
    with pytest.raises(UserError, match=rf"ads.csv, line 8, {message}"):
        snap(write(tmp_path / "ads.csv", rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path is empty; give the ad library's file"),
        ({"path": "none.csv"}, r"no file none\.csv"),
        ({"path": "."}, "is a folder; give the file itself"),
        ({"path": "a", "snapshot": "soon"}, "snapshot = 'soon'; write a date"),
        ({"path": "a", "max_words": 0}, "max_words = 0; it must be 1 or more"),
        ({"path": "a", "grace_days": -1}, "grace_days = -1; it must be 0 or more"),
        ({"path": "a", "fractions": (0.9, 0.1)}, "leave something for test"),
    ],
)
def test_bad_options_of_ads(options, message):
    for make in (snap_ads_lifetimes, google_ads_lifetimes, meta_ads_lifetimes):
        with pytest.raises(UserError, match=message):
            make(AdsOptions(**options))


def test_no_ad_with_a_lifetime(tmp_path):
    path = write(tmp_path / "ads.csv", snap_rows())
    with pytest.raises(UserError, match="snap_ads: no row is left"):
        snap(path, snapshot="2019-01-01")


def google_rows(rows=40):
    """Ad k was shown on days k .. k + k % 6 from 2023-03-01 on."""
    day = datetime.date(2023, 3, 1)
    found = []
    for k in range(rows):
        first, last = (day + datetime.timedelta(days=d) for d in (k, k + k % 6))
        found.append(
            {
                "Ad_ID": f"CR{k}",
                "Ad_URL": "https://a",
                "Ad_Type": ("TEXT", "IMAGE", "VIDEO")[k % 3],
                "Regions": "US",
                "Advertiser_ID": f"AR{k % 9}",
                "Advertiser_Name": f"name {k % 9}",
                "Ad_Campaigns_List": "1, 2",
                "Date_Range_Start": first.isoformat(),
                "Date_Range_End": last.isoformat(),
                "Num_of_Days": str(1 + k % 6),
                "Impressions": "10k-100k",
                "Age_Targeting": "18-24, 25-34",
                "Gender_Targeting": "Not targeted",
                "Geo_Targeting_Included": "Ohio, Utah" if k % 2 else "Not targeted",
                "Geo_Targeting_Excluded": "",
                "Spend_Range_Min_USD": "100",
                "Spend_Range_Max_USD": "1000" if k % 2 else "",
            }
        )
    return found


@pytest.mark.parametrize("lower", [False, True], ids=["bundle", "BigQuery"])
def test_google_ads_stop_when_they_are_not_shown_any_more(tmp_path, lower):
    rows = google_rows()
    if lower:
        rows = [{name.lower(): cell for name, cell in row.items()} for row in rows]
    path = write(tmp_path / "stats.csv", rows)
    options = AdsOptions(path=str(path))
    found, sources = google_ads_lifetimes(options)
    k = np.arange(40)
    last = k + k % 6
    np.testing.assert_array_equal(found.time, 1 + k % 6)
    np.testing.assert_array_equal(found.event, last + 7 < last.max())
    np.testing.assert_array_equal(found.start, k)
    np.testing.assert_array_equal(found.value, np.where(k % 2, 550, 100))
    np.testing.assert_array_equal(number(found, "places_included"), 2 * (k % 2))
    assert words_of(found, "places", 1) == ["ohio", "utah"]
    assert words_of(found, "places", 0) == []
    assert [level(found, "ad_type", row) for row in range(3)] == ["TEXT", "IMAGE", "VIDEO"]
    names = {c.name for c in found.categories}
    assert names == {"ad_type", "regions", "age", "gender", "weekday"}
    assert "in the last 7 days before the snapshot 2023-04-1" in sources[0]
    early = AdsOptions(path=str(path), snapshot="2023-03-11", grace_days=0, advertiser=True)
    found, _ = google_ads_lifetimes(early)
    np.testing.assert_array_equal(found.event, last[:11] < 10)
    np.testing.assert_array_equal(found.time, np.minimum(last, 10)[:11] - k[:11] + 1)
    assert level(found, "advertiser", 10) == "name 1"


def test_bad_files_of_google(tmp_path):
    rows = google_rows()
    rows[3]["Date_Range_End"] = "2023-01-01"
    options = AdsOptions(path=str(tmp_path / "stats.csv"))
    write(tmp_path / "stats.csv", rows)
    message = r"line 5, column 'Date_Range_End': '2023-01-01'; it must not be before the first day"
    with pytest.raises(UserError, match=message):
        google_ads_lifetimes(options)
    write(tmp_path / "stats.csv", [{"Date_Range_Start": "2023-01-01", "Advertiser_Id": "1"}])
    with pytest.raises(UserError, match="no column 'Date_Range_End'; did you mean 'Date_Range_St"):
        google_ads_lifetimes(options)


def meta_ads(rows=36):
    """Ad k starts k days after FIRST and stops 1.5 + k % 4 days later, or never, as JSON has it."""
    found = []
    for k in range(rows):
        start = FIRST + datetime.timedelta(days=k)
        stop = start + datetime.timedelta(days=1.5 + k % 4)
        ad = {
            "id": str(k),
            "page_id": str(k % 7),
            "page_name": f"page {k % 7}",
            "bylines": f"funder {k % 2}",
            "ad_delivery_start_time": start.strftime("%Y-%m-%dT%H:%M:%S+0000"),
            "ad_creative_bodies": ["Join us!", "Join\nnow"] if k % 2 else ["Join us!"],
            "ad_creative_link_titles": ["日本の広告"],
            "publisher_platforms": ["instagram", "facebook"] if k % 3 else ["facebook"],
            "languages": ["en"],
            "currency": "EUR",
            "spend": {"lower_bound": "100", "upper_bound": "199"},
            "impressions": {"lower_bound": str(1000 * k)},
            "estimated_audience_size": {"lower_bound": str(10 * k)},
        }
        if k % 5:
            ad["ad_delivery_stop_time"] = stop.strftime("%Y-%m-%dT%H:%M:%S+0000")
        found.append(ad)
    return found


def answers(path, ads):
    path.write_text(json.dumps([{"data": ads[:20], "paging": {}}, {"data": ads[20:]}]))


def one_answer(path, ads):
    path.write_text(json.dumps({"data": ads}))


def plain_list(path, ads):
    path.write_text(json.dumps(ads), "utf-8")


def lines(path, ads):
    path.write_text("\n".join(json.dumps(ad) for ad in ads) + "\n")


def table(path, ads):
    def cell(value):
        return json.dumps(value) if isinstance(value, list | dict) else value

    stop = "ad_delivery_stop_time"
    write(path, [{k: cell(v) for k, v in ({stop: ""} | ad).items()} for ad in ads])


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (answers, "ads.json"),
        (one_answer, "ads.json"),
        (plain_list, "ads.json"),
        (lines, "ads.jsonl"),
        (table, "ads.csv"),
    ],
)
def test_meta_ads(tmp_path, save, name):
    save(tmp_path / name, meta_ads())
    said = []
    options = AdsOptions(path=str(tmp_path / name), advertiser=True)
    found, _ = meta_ads_lifetimes(options, report=said.append)
    k, snapshot = np.arange(35), 35
    stop = np.where(k % 5, k + 1.5 + k % 4, np.inf)
    np.testing.assert_array_equal(found.event, stop <= snapshot)
    np.testing.assert_array_equal(found.time, np.minimum(stop, snapshot) - k)
    np.testing.assert_array_equal(found.group, k % 7)
    np.testing.assert_array_equal(found.value, np.full(35, 149.5))
    np.testing.assert_array_equal(number(found, "versions"), 1 + k % 2)
    np.testing.assert_array_equal(number(found, "audience_from"), 10 * k)
    assert np.isnan(number(found, "audience_to")).all()
    assert words_of(found, "body", 1) == ["join", "us", "!", "join", "now"]
    assert words_of(found, "title", 0) == ["日本", "の", "広告"]
    assert [level(found, "platforms", r) for r in (0, 1)] == ["facebook", "facebook instagram"]
    assert level(found, "page", 8) == "page 1"
    assert level(found, "funder", 3) == "funder 1"


def test_meta_table_of_a_scraper(tmp_path):
    rows = [
        {
            "ad_id": str(k),
            "page_id": "1" if k % 2 else "2",
            "page_name": "p",
            "ad_creative_body": 'A "quoted"\n\nbody',
            "ad_creative_link_caption": "www.kickstarter.com",
            "ad_creative_link_description": "",
            "ad_creative_link_title": f"Title {k}",
            "ad_delivery_start_time": f"2019-10-{1 + k:02d}T22:24:19+0000",
            "ad_delivery_stop_time": "",
            "funding_entity": "F",
            "impressions_min": "0",
            "impressions_max": "999",
            "spend_min": "0",
            "spend_max": "99",
            "ad_url": "https://a",
        }
        for k in range(20)
    ]
    rows[0]["ad_delivery_stop_time"] = "2019-10-03T10:24:19+0000"
    said = []
    options = AdsOptions(path=str(write(tmp_path / "fb_ads.csv", rows)))
    found, _ = meta_ads_lifetimes(options, report=said.append)
    assert list(found.splits) == ["random", "time"]  # Two pages are too few to split by page.
    assert any("split 'group' of 19 rows leaves" in line for line in said)
    assert found.event.tolist() == [1] + [0] * 18
    assert found.time[0] == 1.5
    np.testing.assert_array_equal(found.time[1:], 18 - np.arange(18))
    np.testing.assert_array_equal(found.value, np.full(19, 49.5))
    assert words_of(found, "body", 0) == ["a", "quoted", "body"]
    assert words_of(found, "caption", 0) == ["www", "kickstarter", "com"]
    np.testing.assert_array_equal(number(found, "versions"), 1)


def test_meta_dates_without_times_count_their_last_day(tmp_path):
    ads = meta_ads()
    for k, ad in enumerate(ads):
        ad["ad_delivery_start_time"] = f"2020-09-{1 + k % 20:02d}"
        ad["ad_delivery_stop_time"] = f"2020-09-{1 + k % 20 + k % 3:02d}"
    lines(tmp_path / "ads.jsonl", ads)
    found, _ = meta_ads_lifetimes(AdsOptions(path=str(tmp_path / "ads.jsonl")))
    k = np.arange(36)
    stop = k % 20 + k % 3 + 1
    np.testing.assert_array_equal(found.event, stop <= 20)
    np.testing.assert_array_equal(found.time, np.minimum(stop, 20) - k % 20)
    assert found.time.min() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"ads\.json: not JSON"),
        ("[]", r"ads\.json holds no ad"),
        ("[1]", r"ads\.json, ad 1: '1'; it must be an object"),
        ('{"data": 3}', "'data' must hold a list of ads"),
        ('[{"id": "1", "ad_delivery_start": ""}]', "did you mean 'ad_delivery_start'"),
        ('[{"ad_delivery_start_time": "2020-01-01"}]', "no column 'page_id'"),
        ('[{"ad_delivery_start_time": "x", "page_id": "1"}]', r"ad 1, column '.*': 'x'; it must"),
        ('[{"ad_delivery_start_time": "2020-01-01", "page_id": ""}]', "the page must be given"),
    ],
)
def test_bad_files_of_meta(tmp_path, text, message):
    (tmp_path / "ads.json").write_text(text)
    with pytest.raises(UserError, match=message):
        meta_ads_lifetimes(AdsOptions(path=str(tmp_path / "ads.json")))


def test_bad_lines_of_meta(tmp_path):
    (tmp_path / "ads.jsonl").write_text('{"page_id": "1"}\n{oh\n')
    with pytest.raises(UserError, match=r"ads\.jsonl, line 2: not JSON"):
        meta_ads_lifetimes(AdsOptions(path=str(tmp_path / "ads.jsonl")))


@pytest.mark.parametrize(
    ("cell", "want"),
    [
        ('{"lower_bound": "100", "upper_bound": "199"}', (100, 199)),
        ("lower_bound: 5, upper_bound: 9", (5, 9)),
        ('{"lower_bound": "1000000"}', (1_000_000, np.nan)),
        ("", (np.nan, np.nan)),
    ],
)
def test_bounds(cell, want):
    np.testing.assert_array_equal(bounds(cell), want)


def test_loaded_and_prepared_from_the_command_line(tmp_path, capsys):
    path = write(tmp_path / "PoliticalAds.csv", snap_rows())
    packed = tmp_path / "snap.csv.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    google = write(tmp_path / "stats.csv", google_rows())
    lines(tmp_path / "ads.jsonl", meta_ads())
    sets = tmp_path / "sets"
    for name, file, make in (
        ("snap_ads", path, snap_ads_lifetimes),
        ("google_ads", google, google_ads_lifetimes),
        ("meta_ads", tmp_path / "ads.jsonl", meta_ads_lifetimes),
    ):
        found = load_made(name, AdsOptions(path=str(file)), sets)
        want, _ = make(AdsOptions(path=str(file)))
        again = load_file(name, str(file), data_dir=sets)
        for field in ("time", "event", "group", "value", "start"):
            np.testing.assert_array_equal(getattr(found, field), getattr(want, field))
            np.testing.assert_array_equal(getattr(again, field), getattr(want, field))
        assert found.words == want.words
    assert len(list((sets / "snap_ads").iterdir())) == 1
    np.testing.assert_array_equal(
        snap(packed)[0].time, load_made("snap_ads", AdsOptions(path=str(path)), sets).time
    )
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "snap.csv.xz").write_bytes(packed.read_bytes())
    cli.main(["prepare", "snap_ads", "--manual-dir", str(folder), "--data-dir", str(sets)])
    assert "snap_ads: whole in" in capsys.readouterr().out
