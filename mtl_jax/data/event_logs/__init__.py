"""Impressions from any multi-behaviour log: user, item, behaviour, time and further columns.

`load_event_log(preset("tmall2014", "events.csv"))`, or with `EventLogOptions` of your own.

- `options`: what to make of a log; `presets`: for public logs; `tasks`: how labels are named.
- `reading`, `times`, `codes`: files to columns to numbers; `shards`: the external sort.
- `vocabularies`, `tables`: statistics of the training window; items' and users' own columns.
- `rows`: rows, splits, labels; `histories`: what a row sees of the past.
- `build`, `builder`, `loading`: the set on disk.

A log is read once and sorted into temporary files by user; memory holds one of them at a time, the
vocabularies and, of text, the distinct values.
"""
