"""Methods side by side on five quick sets: `make compare`."""
