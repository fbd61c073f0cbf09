"""Scores of new impressions: one CSV in, one CSV out.

The input has a row an impression and a line of column names. Columns of the set go by their names
and hold raw values (or ids, for sets that were generated); a value that training has not seen, and
a column that is missing, count as unseen. The histories are those of the set, as far as the rows of
that user there have seen them; `time`, in the set's unit, cuts them strictly before it. The user is
the column that the set groups by.

The output has the input's columns and one for each task with its probability.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mtl_jax.data.impressions import UNSEEN, ImpressionSet
from mtl_jax.errors import UserError, did_you_mean
from mtl_jax.systems.csv_files import read_numbers, read_rows, write_rows

if TYPE_CHECKING:
    from mtl_jax.engine.state import TrainState
    from mtl_jax.run import Run

BATCH = 4096
TIME = "time"


def predict_file(run: Run, state: TrainState, source: Path, target: Path) -> str:
    """Reads impressions, writes their probabilities; returns a line that says what was done.

    Raises:
      UserError: what is wrong with the input, in one line that names row and column.
    """
    # Imported late: the builders draw on this package.
    from mtl_jax.systems.dtrn.builders import load, vocabularies
    from mtl_jax.systems.dtrn.data import impression_data

    config: Any = run.config
    found = load(config.data)
    head, lines = read_rows(source, "impressions")
    cases, unseen = impressions(found, vocabularies(config.data), head, lines, str(source))
    data = impression_data(
        cases,
        length=config.data.length,
        batch_size=1,
        eval_batch_size=BATCH,
        seed=0,
        shard=0,
        shards=1,
        event_attributes=True,
        history_sizes=config.data.history_sizes,
        resident=False,
    )

    def probabilities(params: Any, model_state: Any, batch: Any) -> Any:
        assert run.system.predict is not None
        return jax.nn.sigmoid(run.system.predict(params, model_state, batch)["logit"])

    compiled, parts = jax.jit(probabilities), []
    whole = run.export(state)
    for host in data.eval_batches("test"):
        batch = data.assemble(data.resident, host, None)
        out = np.asarray(compiled(whole.params, whole.model_state, batch))
        parts.append(out[np.asarray(host["mask"])])
    found_probabilities = np.concatenate(parts)
    more = {
        task: [f"{value:.6f}" for value in found_probabilities[:, t]]
        for t, task in enumerate(run.system.task_names)
    }
    write_rows(target, head, lines, more)
    note = ", ".join(f"{count} of {name}" for name, count in unseen.items() if count)
    return f"{target}: {len(lines)} impressions; unseen in training: {note or 'nothing'}"


def impressions(
    found: ImpressionSet,
    vocabularies: dict[str, np.ndarray],
    head: list[str],
    rows: list[list[str]],
    source: str,
) -> tuple[ImpressionSet, dict[str, int]]:
    """Returns the rows of a CSV as impressions of a known set, and how many values were unseen.

    Args:
      found: the set that the network was trained on.
      vocabularies: {column: raw values of ids 2, 3, ...}; columns without hold ids.
      head: names of the columns.
      rows: their values.
      source: for messages.

    Raises:
      UserError: unknown columns, no item, times or ids that are no numbers or out of range.
    """
    names = [column.name for column in found.columns]
    dense = list(found.dense_names)
    for name in head:
        if name not in (*names, *dense, TIME):
            raise UserError(
                f"{source}: column {name!r}; {did_you_mean(name, [*names, *dense, TIME])}"
            )
    if found.item and found.item not in head:
        raise UserError(f"{source}: no column {found.item!r}, which says what is to be scored")
    count = len(rows)
    fields = np.full((count, len(names)), UNSEEN, np.int32)
    unseen: dict[str, int] = {}
    for f, column in enumerate(found.columns):
        if column.name not in head:
            unseen[column.name] = count
            continue
        raw = [row[head.index(column.name)].strip() for row in rows]
        if column.name in vocabularies:
            known = {str(value): i + 2 for i, value in enumerate(vocabularies[column.name])}
            fields[:, f] = [known.get(value, UNSEEN) for value in raw]
        else:
            fields[:, f] = read_numbers(raw, column.name, source, 0, column.size - 1, whole=True)
        unseen[column.name] = int((fields[:, f] == UNSEEN).sum())
    numbers = np.zeros((count, len(dense)), np.float32)
    for d, name in enumerate(dense):
        if name in head:
            numbers[:, d] = read_numbers([row[head.index(name)] for row in rows], name, source)
    last = int(found.time.max()) + 1
    time = np.full(count, last, np.int64)
    if TIME in head:
        raw = [row[head.index(TIME)] for row in rows]
        time = read_numbers(raw, TIME, source, 0, 2**62, whole=True).astype(np.int64)
    group, starts, ends = _histories(found, names, fields, time)
    tasks = len(found.task_names)
    empty = np.zeros(0, np.int32)
    everyone = np.arange(count, dtype=np.int32)
    cases = found._replace(
        name=source,
        fields=fields,
        dense=numbers,
        starts=starts,
        ends=ends,
        labels=np.zeros((count, tasks), np.float32),
        label_mask=np.ones((count, tasks), np.float32),
        group=group,
        time=time,
        splits={"train": everyone, "validation": empty, "test": everyone},
        truth=np.zeros((count, 0), np.float32),
    )
    return cases, unseen


def _histories(
    found: ImpressionSet, names: list[str], fields: np.ndarray, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds each row's user in the set, and how far its streams go before the row."""
    count, streams = len(fields), len(found.histories)
    starts = np.zeros((count, streams), np.int64)
    ends = np.zeros((count, streams), np.int64)
    group = np.full(count, -1, np.int32)
    user = next((f for f, column in enumerate(found.columns) if _is_group(found, f)), None)
    if user is None:
        return group, starts, ends
    order = np.argsort(found.fields[:, user], kind="stable")
    keys = found.fields[order, user]
    for i in range(count):
        low, high = np.searchsorted(keys, [fields[i, user], fields[i, user] + 1])
        if fields[i, user] <= UNSEEN or low == high:
            continue
        own = order[low:high]
        group[i] = found.group[own[0]]
        for s, history in enumerate(found.histories):
            starts[i, s] = found.starts[own, s].min()
            stop = found.ends[own, s].max()
            times = history.times[starts[i, s] : stop]
            ends[i, s] = starts[i, s] + np.searchsorted(times, time[i]) if len(times) else stop
    return group, starts, ends


def _is_group(found: ImpressionSet, column: int) -> bool:
    """Whether a column names the user: seen ids and groups go together one to one."""
    if found.columns[column].kind != "user":
        return False
    ids = found.fields[:, column]
    pairs = np.unique(np.stack([ids, found.group])[:, ids > UNSEEN], axis=1)
    return pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
