"""SurvSet's tables: read without pandas and without running anything, and made lifetimes of."""

import base64
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from benchmarks import survival_references
from mtl_jax.data import fetch, manifest, registry
from mtl_jax.data.lifetimes import MISSING, SPLITS
from mtl_jax.data.lifetimes_io import load_lifetimes
from mtl_jax.data.prepare import prepare
from mtl_jax.data.survival import survset
from mtl_jax.data.survival.survset import (
    RECIPES,
    SEEDS,
    number_scale,
    survset_lifetimes,
    table_lifetimes,
)
from mtl_jax.data.survival.survset_files import VERSION, read_csv_table
from mtl_jax.data.survival.survset_pickle import Factor, read_pickled_table
from mtl_jax.errors import UserError

# Made by benchmarks/side_survset_tables.py, which says how.
TABLES = json.loads(Path(__file__).with_name("survset_tables.json").read_text())
PATIENTS = base64.b64decode(TABLES["patients"])
OLD_PATIENTS = base64.b64decode(TABLES["old patients"])
VISITS = base64.b64decode(TABLES["visits"])
CSV = TABLES["csv patients"]
NAN = np.nan


def patients(**options):
    """The lifetimes of the table of ten patients."""
    columns = read_pickled_table(PATIENTS, "patients")
    return table_lifetimes(columns, name="p", unit="day", cause="death", **options)


def by_name(columns):
    return {column.name: column for column in columns}


def assert_same(one, other):
    """Equal sets, whatever they are called."""
    for name in ("unit", "causes", "event", "time", "upper", "entry", "weight", "group"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for kind in ("numbers", "categories"):
        for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True):
            assert type(a) is type(b)
            for field in a._fields:
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert list(one.splits) == list(other.splits)
    for protocol, splits in one.splits.items():
        for split in SPLITS:
            np.testing.assert_array_equal(splits[split], other.splits[protocol][split])


# Reading pickles.


def test_every_kind_of_column_is_read_as_pandas_wrote_it():
    found = read_pickled_table(PATIENTS, "patients")
    plain = {
        "pid": np.arange(10),
        "event": [1, 0, 1, 1, 0, 1, 0, 1, 1, 1],
        "time": [3.0, 0.5, 12.0, 7.0, 30.0, 2.0, 2.0, 9.0, 41.0, 1.0],
        "num_age": [50.5, 61.0, NAN, 47.0, 80.0, 66.0, 71.0, 39.0, 58.0, 64.0],
        "num_dose": [0, 1, 2, 0, 900, 3, 1, 2, 1, 0],
        "num_late": [1.0] * 9 + [NAN],
    }
    for name, values in plain.items():
        np.testing.assert_array_equal(found[name], values)
    factors = {
        "fac_sex": (("f", "m"), "fmfmmffmfm"),
        "fac_count": (("0", "2", "10"), ["10", "2", "0", "2", "10", "0", "2", "10", "0", "2"]),
        "fac_flag": (("0", "1"), "0110100110"),
        "fac_yes": (("False", "True"), ["True", "False"] * 5),
        "fac_word": (("a", "b"), "ab" * 5),
        "fac_lack": (("x", "y"), [None, "x", "y", None, "x", "y", "x", "x", "y", "y"]),
    }
    for name, (levels, cells) in factors.items():
        assert found[name].levels == levels
        read = [levels[code] if code >= 0 else None for code in found[name].codes]
        assert read == list(cells)
    assert found["fac_care"].levels == ("some", "missing", "unused", "none", "all")
    first = ["pid", "event", "time", "num_age", "num_dose", "fac_sex", "fac_care"]
    assert list(found)[: len(first)] == first


def test_both_names_of_numpys_private_module_are_known():
    assert b"numpy._core" in PATIENTS
    assert b"numpy._core" not in OLD_PATIENTS
    assert b"numpy.core" in OLD_PATIENTS
    old = table_lifetimes(
        read_pickled_table(OLD_PATIENTS, "old"), name="p", unit="day", cause="death"
    )
    assert_same(patients(), old)


def test_lists_of_rows_strings_and_unknown_whole_numbers_are_read():
    found = read_pickled_table(VISITS, "visits")
    assert found["pid"].tolist() == ["a", "b", "a"]
    assert found["time2"].tolist() == [4, 5, 9]
    assert found["num_part"].tolist() == [1, 3, None]


class Touch:
    """When unpickled the usual way, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_that_a_pickle_names_is_run(tmp_path):
    path = tmp_path / "made"
    data = pickle.dumps(Touch(path), protocol=5)
    with pytest.raises(UserError, match=r"it names 'pathlib.*nothing of it is read; give the file"):
        read_pickled_table(data, "evil")
    assert not path.exists()
    pickle.loads(data)
    assert path.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "slice.indices"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("pandas.core.frame", "DataFrame.to_csv"),
        ("pandas", "read_pickle"),
        ("mtl_jax.data.fetch", "run"),
    ],
)
def test_every_other_name_is_refused(module, name):
    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode()

    data = b"\x80\x05" + text(module) + text(name) + b"\x93)R."
    with pytest.raises(UserError, match=f"it names '{module}.{name}', which no table needs"):
        read_pickled_table(data, "evil")


def test_a_name_in_the_midst_of_a_table_is_refused():
    evil = PATIENTS.replace(b"\x8c\x05slice", b"\x8c\x05print")
    assert evil != PATIENTS
    with pytest.raises(UserError, match=r"it names 'builtins.print'"):
        read_pickled_table(evil, "evil")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04cos\nsystem\n(S'x'\ntR.", "the instruction GLOBAL"),
        (b"\x80\x05\x82\x01.", "the instruction EXT1"),
        (b"\x80\x05Nr\xff\xff\xff\x7f.", "the instruction LONG_BINPUT"),  # 32 GB of memo
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.", "not a table"),  # more than there is
        (b"", "not a table"),
        (b"\x80\x05N.", "a NoneType stands where a frame should"),
        (b"\x80\x05].", "a list stands where a frame should"),
        (PATIENTS[:-1], "not a table"),
    ],
)
def test_other_pickles_are_told_in_one_line(data, message):
    with pytest.raises(UserError, match=message) as told:
        read_pickled_table(data, "file")
    assert "\n" not in str(told.value)


def test_damage_raises_nothing_else():
    rng = np.random.default_rng(0)
    told = []
    for _ in range(300):
        data = bytearray(PATIENTS)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            found = read_pickled_table(bytes(data), "damaged")
        except UserError as error:
            told.append(str(error))
        else:
            # A number or a name has changed, which is for a checksum to find.
            sizes = {len(c.codes if isinstance(c, Factor) else c) for c in found.values()}
            assert sizes == {10}
    assert 100 < len(told) < 300
    assert not any("\n" in line for line in told)


# Tables into lifetimes.


def test_events_times_and_what_a_table_has_not():
    found = patients()
    np.testing.assert_array_equal(found.event, [1, 0, 1, 1, 0, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.time, np.float32([3, 0.5, 12, 7, 30, 2, 2, 9, 41, 1]))
    np.testing.assert_array_equal(found.upper, found.time)
    assert not found.entry.any()
    assert len(set(found.group.tolist())) == 10
    assert (found.unit, found.causes) == ("day", ("death",))
    assert not found.texts
    assert found.image.shape == (10, 0, 0, 3)


def test_numbers_keep_their_values_and_get_a_scale():
    numbers = by_name(patients().numbers)
    assert list(numbers) == ["num_age", "num_dose", "num_late"]
    assert np.isnan(numbers["num_age"].values[2])
    np.testing.assert_array_equal(
        numbers["num_dose"].values, np.float32([0, 1, 2, 0, 900, 3, 1, 2, 1, 0])
    )
    assert {n.name: n.scale for n in numbers.values()} == {
        "num_age": "linear",
        "num_dose": "log",
        "num_late": "linear",
    }


def test_levels_are_sorted_occur_and_missing_is_none():
    found = by_name(patients().categories)
    assert found["fac_care"].levels == ("all", "none", "some")
    np.testing.assert_array_equal(
        found["fac_care"].codes, [1, MISSING, 2, 1, 0, 2, 0, 1, MISSING, 0]
    )
    assert found["fac_count"].levels == ("0", "2", "10")
    np.testing.assert_array_equal(found["fac_lack"].codes, [-1, 0, 1, -1, 0, 1, 0, 0, 1, 1])
    mixed = Factor(("2", "10", "b"), np.int32([0, 1, 2]))
    columns = {"event": np.ones(3), "time": np.ones(3), "fac_a": mixed}
    many = {n: np.tile(c, 4) for n, c in columns.items() if n != "fac_a"}
    many["fac_a"] = Factor(mixed.levels, np.tile(mixed.codes, 4))
    (category,) = table_lifetimes(many, name="m", unit="day", cause="x").categories
    assert category.levels == ("10", "2", "b")  # not all are numbers
    np.testing.assert_array_equal(category.codes[:3], [1, 0, 2])


def test_a_csv_file_of_the_same_table_gives_the_same_lifetimes():
    columns = read_csv_table(CSV.encode(), "patients.csv")
    assert_same(patients(), table_lifetimes(columns, name="c", unit="day", cause="death"))


def test_splits_are_those_of_numpys_permutation_by_seed():
    found = patients().splits
    assert list(found) == ["random", "random_1", "random_2", "random_3", "random_4"]
    for seed, splits in zip(SEEDS, found.values(), strict=True):
        place = np.random.default_rng(seed).permutation(10)
        for split, (low, high) in zip(SPLITS, [(0, 6), (6, 8), (8, 10)], strict=True):
            np.testing.assert_array_equal(
                splits[split], np.flatnonzero((place >= low) & (place < high))
            )


# The scale of numbers.


def test_a_scale_is_log_where_that_takes_away_a_long_right_tail():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=2000)
    assert number_scale(np.exp(normal)) == "log"
    assert number_scale(rng.poisson(0.3, 2000)) == "log"
    assert number_scale(50 + 5 * normal) == "linear"
    assert number_scale(rng.uniform(size=2000)) == "linear"
    assert number_scale(10 - np.minimum(np.exp(normal), 10)) == "linear"  # tail on the left
    assert number_scale(np.exp(normal) - 0.5) == "linear"  # some are negative
    assert number_scale(np.full(9, 0.1)) == "linear"
    assert number_scale(np.full(9, NAN)) == "linear"


def test_a_scale_depends_on_known_values_alone():
    rng = np.random.default_rng(1)
    for values in (rng.lognormal(size=300), rng.normal(20, 2, 300)):
        holes = np.concatenate([values, np.full(200, NAN)])
        assert number_scale(rng.permutation(holes)) == number_scale(values)


# The sets.


def study(tmp_path, recipe, numbers=(), factors=(), suffix="csv"):
    """A folder with a table of 40 rows that has these columns besides the ten patients'."""
    rng = np.random.default_rng(0)
    names = ["pid", "event", "time", "num_kept", "fac_kept", *numbers, *factors]
    lines = [",".join(names)]
    for row in range(40):
        cells = [row, rng.integers(2), rng.integers(1, 50), f"{rng.normal():.3f}", "ab"[row % 2]]
        cells += [f"{rng.uniform():.3f}" for _ in numbers]
        cells += ["xy"[rng.integers(2)] for _ in factors]
        lines.append(",".join(map(str, cells)))
    (tmp_path / f"{recipe.table}.{suffix}").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_what_tells_the_outcome_is_dropped_and_configs_drop_more(tmp_path, name):
    recipe = RECIPES[name]
    more = {column for dropped in recipe.configs.values() for column in dropped}
    columns = sorted(more | set(recipe.dropped))
    folder = study(
        tmp_path,
        recipe,
        [column for column in columns if column.startswith("num_")],
        [column for column in columns if column.startswith("fac_")],
    )
    for config in recipe.configs or (None,):
        found, origin = survset_lifetimes(name, config, folder)
        left = {column.name for column in (*found.numbers, *found.categories)}
        gone = set(recipe.dropped) | set(recipe.configs.get(config, ()))
        assert left == {"num_kept", "fac_kept"} | set(columns) - gone
        assert found.name == (f"{name}/{config}" if config else name)
        assert origin == str(folder)
    default, _ = survset_lifetimes(name, None, folder)
    assert len(default.numbers) + len(default.categories) == 2 + len(more)


def test_the_leaks_that_are_known_are_dropped():
    assert "fac_sfdm2" in RECIPES["support2"].dropped
    scores = {"num_surv2m", "num_surv6m"}
    assert scores <= set(RECIPES["support2"].configs["no_model_scores"])
    assert scores | {"fac_dnr"} <= set(RECIPES["support2"].configs["at_entry"])
    assert {"fac_rsc", "fac_rer", "fac_psc"} <= set(RECIPES["hdfail"].configs["at_entry"])
    assert "num_surv2md1" in RECIPES["rhc"].configs["no_model_scores"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_registry_and_the_builders_know_the_configs(name):
    spec, recipe = registry.DATASETS[name], RECIPES[name]
    assert spec.configs == tuple(recipe.configs)
    assert recipe.table in spec.manual
    built = [config.name for config in spec.builder_class().BUILDER_CONFIGS]
    assert built == list(recipe.configs)


@pytest.mark.parametrize("name", ["unempdur", "rhc/no_model_scores"])
def test_a_set_is_built_from_a_folder_and_comes_back(tmp_path, name):
    base, _, config = name.partition("/")
    folder = study(tmp_path, RECIPES[base], numbers=("num_surv2md1",))
    where = prepare(name, tmp_path / "sets", folder)
    assert manifest.read(where)["sources"] == [str(folder)]
    found = load_lifetimes(name, tmp_path / "sets")
    assert_same(found, survset_lifetimes(base, config or None, folder)[0])
    assert found.name == name


def test_a_table_is_fetched_once_and_checked(monkeypatch):
    asked = []

    def files_from_pip(package, version, members, report, seconds):
        asked.append((package, version, *members))
        return dict.fromkeys(members, PATIENTS)

    monkeypatch.setattr(fetch, "files_from_pip", files_from_pip)
    with pytest.raises(UserError, match=r"sha256 differs.*Way out: give --manual-dir a folder"):
        survset_lifetimes("rhc", report=lambda line: None)
    known = RECIPES["rhc"]._replace(sha256=hashlib.sha256(PATIENTS).hexdigest())
    monkeypatch.setattr(survset, "RECIPES", {"rhc": known})
    for _ in range(2):
        found, origin = survset_lifetimes("rhc", report=lambda line: None)
        assert_same(found, patients())
        assert "GPLv3" in origin
    wanted = ("SurvSet", VERSION, "SurvSet/resources/pickles/rhc.pickle")
    assert asked == [wanted, wanted]  # once refused, once kept


# What a user can get wrong.


def test_unknown_sets_configs_and_folders_are_told(tmp_path):
    with pytest.raises(UserError, match="unknown set 'suport2'; did you mean 'support2'"):
        survset_lifetimes("suport2")
    with pytest.raises(UserError, match="unknown config 'no_scores' of rhc; did you mean 'no_mod"):
        survset_lifetimes("rhc", "no_scores")
    with pytest.raises(UserError, match="unknown config 'x' of unempdur; it has one"):
        survset_lifetimes("unempdur", "x")
    with pytest.raises(UserError, match=r"no unempdur in it; give a folder with UnempDur.pickle"):
        survset_lifetimes("unempdur", None, tmp_path)
    (tmp_path / "rhc.pickle").write_bytes(VISITS)
    with pytest.raises(UserError, match="'time2' says that covariates change"):
        survset_lifetimes("rhc", None, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event": None}, "no column 'event'; it has pid, time"),
        ({"event": np.full(10, 2.0)}, "row 0 has event 2.0; it must be 0 or 1"),
        ({"event": np.full(10, NAN)}, "row 0 has event nan"),
        ({"time": np.full(10, -1.0)}, "row 0 has time -1.0; times must be"),
        ({"time": np.full(10, NAN)}, "row 0 has time nan"),
        ({"pid": np.zeros(10)}, "some 'pid' has several rows"),
        ({"num_age": np.full(10, np.inf)}, "num_age"),
        ({"num_age": np.array(["x"] * 10, object)}, "column 'num_age' must hold numbers"),
        ({"fac_sex": np.zeros(10)}, "column 'fac_sex' is neither"),
        ({"age": np.zeros(10)}, "column 'age' is neither"),
    ],
)
def test_wrong_columns_are_told(change, message):
    columns = {**read_pickled_table(PATIENTS, "patients"), **change}
    columns = {name: column for name, column in columns.items() if column is not None}
    with pytest.raises(UserError, match=message):
        table_lifetimes(columns, name="p", unit="day", cause="death")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no rows; the first line names the columns"),
        (b"event,time\n", "no rows"),
        (b"event,time\n1,2\n1\n", "row 3: 1 cells, the header has 2"),
        (b"event,time\n1,two\n", "row 2: time is 'two'; only columns fac_"),
        (b"time,time\n1,2\n", "names of columns repeat"),
        (b"event,time\n1,\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_wrong_csv_files_are_told(data, message):
    with pytest.raises(UserError, match=message) as told:
        read_csv_table(data, "file.csv")
    assert "\n" not in str(told.value)


def test_csv_cells_may_be_quoted_blank_or_unknown():
    text = '\ufefffac_a,num_b,event\r\n"x, y", 1.5 ,1\r\n,NA,0\r\n\r\nz,,1\r\n'
    found = read_csv_table(text.encode(), "file.csv")
    assert found["fac_a"].levels == ("x, y", "z")
    assert found["fac_a"].codes.tolist() == [0, -1, 1]
    np.testing.assert_array_equal(found["num_b"], [1.5, NAN, NAN])


# What references are given.


def test_columns_of_references_are_made_of_training_rows():
    found, train = patients(), np.array([0, 1, 3, 4, 5, 6, 7, 8])
    given = survival_references.design(found, train)
    assert np.isfinite(given).all()
    assert (given[train].std(axis=0) > 0).all()
    kinds = np.sort([len(np.unique(column)) for column in given[train].T])
    assert kinds[0] == 2
    standard = [c for c in given[train].T if len(np.unique(c)) > 2]
    np.testing.assert_allclose(np.mean(standard, axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.std(standard, axis=1), 1)
    # What other rows hold changes nothing for those of training.
    others = np.setdiff1d(np.arange(10), train)
    numbers = []
    for number in found.numbers:
        values = number.values.copy()
        values[others] = 77
        numbers.append(number._replace(values=values))
    changed = survival_references.design(found._replace(numbers=tuple(numbers)), train)
    np.testing.assert_array_equal(changed[train], given[train])


def test_terms_of_references_share_the_events():
    time = np.array([10.0, 30, 31, 90, 30, 5])
    event = np.array([1, 1, 1, 0, 0, 0], bool)
    found = survival_references.terms(time, event, 30.0)
    rows, short, inside = found["short"]
    assert len(rows) == 6
    np.testing.assert_array_equal(short, [10, 30, 30, 30, 30, 5])
    np.testing.assert_array_equal(inside, [1, 1, 0, 0, 0, 0])
    rows, long, late = found["long"]
    np.testing.assert_array_equal(rows, [2, 3])
    np.testing.assert_array_equal(long, [31, 90])
    assert inside.sum() + late.sum() == event.sum()
    assert list(survival_references.terms(time, event, None)) == ["overall"]
