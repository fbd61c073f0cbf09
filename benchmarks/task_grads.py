"""Per-task gradients: strategy x model x number of tasks, against the counted floor.

Unit: a forward pass costs 1 and a backward pass 2, so the step of a plain sum of losses costs 3.
Gradients of T losses from one forward pass ("first") cost at least 1 + 2T, that is (1 + 2T) / 3
sum steps; flat regions ("fs") add T forward and T backward passes: (1 + 5T) / 3. Below the floor
are only those parts that a floor of whole networks counts too high: the first layer has no input
gradient, and heads belong to one task.

    python -m benchmarks.task_grads                 # short: every model, two strategies
    python -m benchmarks.task_grads --full          # every strategy, T up to 40
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import models, timing
from mtl_jax.engine import rng
from mtl_jax.engine.step import bind
from mtl_jax.errors import Parser, UserError, run_command
from mtl_jax.layers.platform import cpu_compiler_options
from mtl_jax.methods import gram, ownership
from mtl_jax.methods.perturbation import Perturbation, perturbed_grads
from mtl_jax.methods.task_grads import pick_strategy

Tree = Any
STRATEGIES = ("vmap", "scan", "unroll")
COLUMNS = (
    "model", "tasks", "batch", "strategy", "pass", "median_ms", "min_ms", "cpu_ms",
    "over_sum", "floor", "over_floor", "compile_seconds", "temp_mb",
)  # fmt: skip


def floor(name: str, num_tasks: int) -> float:
    """Counted cost of a pass in sum steps."""
    return {"sum": 1.0, "first": (1 + 2 * num_tasks) / 3, "fs": (1 + 5 * num_tasks) / 3}[name]


def programs(model: str, num_tasks: int, batch_size: int) -> tuple[dict, tuple]:
    """Returns {pass: function(strategy) -> function(*args)} and the arguments.

    sum: gradient of the sum of the losses. first: gradients of every loss. fs: first, then the
    gradients at every task's own worst point, and the sum of the means of g and of h: with the
    mean in an aggregator's place nothing but the gradients is timed.
    """
    system, data = models.build(model, num_tasks, batch_size)
    batch = jax.jit(data.assemble)(data.resident, data.train_batch(0), None)
    params, model_state = jax.jit(system.init)(rng.key_for(0, 0, "init"), batch)
    keys = rng.example_keys(rng.key_for(0, 0, "train"), jnp.arange(batch_size))
    how = Perturbation(0.05, 0.05)
    share = jnp.full(num_tasks, 1 / num_tasks)

    def bound(strategy: str, params: Tree, model_state: Tree, batch: Tree, keys: Tree) -> Any:
        return bind(system, params, model_state, batch, keys, strategy=strategy)  # type: ignore[arg-type]

    def sum_step(strategy: str, *args: Tree) -> tuple:
        weigh = lambda losses, active: (active.astype(losses.dtype), ())  # noqa: E731
        grads, losses, _, _, aux = bound(strategy, *args).weighted_grads(args[0], weigh)
        return grads, losses, aux

    def first(strategy: str, *args: Tree) -> tuple:
        grads, losses, _, aux = bound(strategy, *args).task_grads(args[0])
        return grads, losses, aux

    def fs(strategy: str, *args: Tree) -> tuple:
        problem = bound(strategy, *args)
        grads, losses, _, aux = problem.task_grads(args[0])
        moved, _ = perturbed_grads(problem, args[0], grads, how)
        flat = jax.tree.map(jnp.subtract, moved.shared, grads.shared)
        both = (gram.combine(rows, share) for rows in (grads.shared, flat))
        return ownership.merge(jax.tree.map(jnp.add, *both), moved.heads), losses, aux

    return {"sum": sum_step, "first": first, "fs": fs}, (params, model_state, batch, keys)


def compiled(fn: Any, strategy: str, args: tuple) -> tuple[Any, float, float]:
    """Returns (executable, compile seconds, temporary MB) of `fn(strategy, *args)`."""
    began = time.perf_counter()
    lowered = jax.jit(lambda *args: fn(strategy, *args)).lower(*args)
    program = lowered.compile(compiler_options={**cpu_compiler_options()})
    seconds = time.perf_counter() - began
    memory = program.memory_analysis()
    return program, seconds, getattr(memory, "temp_size_in_bytes", 0) / 2**20


def measure(
    model: str,
    num_tasks: int,
    strategies: Sequence[str],
    *,
    batch_size: int = 0,
    passes: Sequence[str] = ("first", "fs"),
    rounds: int = 5,
    seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Times the strategies of one model and T in turns with its sum step; one row each.

    Fields of a row: those of `COLUMNS`; `over_sum` is the ratio to the sum step of the same turns
    and `over_floor` that ratio / `floor`.
    """
    batch_size = batch_size or models.default_batch(model)
    functions, args = programs(model, num_tasks, batch_size)
    wanted = [("sum", "-"), *((name, how) for how in strategies for name in passes)]
    built = {key: compiled(functions[key[0]], key[1], args) for key in wanted}
    calls = {key: lambda program=program: program(*args) for key, (program, _, _) in built.items()}
    times = timing.paired(calls, rounds=rounds, seconds=seconds)  # type: ignore[arg-type]
    rows = []
    for key, (_, compile_seconds, temp_mb) in built.items():
        over = times[key].over(times["sum", "-"])  # type: ignore[index]
        least = floor(key[0], num_tasks)
        rows.append(
            {
                "model": model, "tasks": num_tasks, "batch": batch_size,
                "strategy": key[1], "pass": key[0], **times[key].fields(),  # type: ignore[index]
                "over_sum": round(over, 4), "floor": round(least, 4),
                "over_floor": round(over / least, 4),
                "compile_seconds": round(compile_seconds, 2), "temp_mb": round(temp_mb, 1),
            }
        )  # fmt: skip
    return rows


def plan(full: bool) -> list[tuple[str, int, tuple[str, ...]]]:
    """The (model, T, strategies) to run."""
    if not full:
        auto = {t: pick_strategy("auto", t, False, jax.default_backend()) for t in (2, 10)}
        cells = [("mlp", 2), ("mlp", 10), ("lenet_10_20", 2), ("lenet_10_20", 10)]
        cells += [("lenet_32_64", 2), ("resnet18", 2)]
        return [(model, t, (auto[t],)) for model, t in cells]
    small = [("mlp", t) for t in (2, 3, 10, 40)] + [("lenet_10_20", t) for t in (2, 3, 10, 40)]
    cells = small + [("lenet_32_64", t) for t in (2, 10)]
    out = [(model, t, STRATEGIES) for model, t in cells]
    # Written out, a ResNet-18 of ten tasks compiles for a minute; as a batch it takes minutes a
    # call on a CPU.
    big = ("scan",) if jax.default_backend() == "cpu" else ("vmap", "scan")
    return [*out, ("resnet18", 2, STRATEGIES), ("resnet18", 10, big)]


def run(full: bool = False, models_wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Runs the plan, prints as it goes, and returns all rows."""
    rows = []
    for model, num_tasks, strategies in plan(full):
        if models_wanted and model not in models_wanted:
            continue
        new = measure(model, num_tasks, strategies, seconds=4.0 if full else 2.0)
        timing.show(new, COLUMNS)
        rows += new
    return rows


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.task_grads")
    parser.add_argument("--full", action="store_true", help="every strategy, T up to 40")
    parser.add_argument("--models", default="", help=f"of {', '.join(models.MODELS)}")
    args = parser.parse_args(argv)
    wanted = [name for name in args.models.split(",") if name]
    for name in wanted:
        models.find(name)
    timing.without_compile_cache()
    before = timing.environment()
    rows = run(args.full, wanted)
    if not rows:
        raise UserError(f"nothing is planned for {args.models}; try --full")
    print(f"written: {timing.write('task_grads', rows, before, full=args.full)}")


if __name__ == "__main__":
    run_command(main)
