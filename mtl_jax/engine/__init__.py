"""The training engine: state, step, devices, checkpoints, logs. See each module."""
