"""TIM: what holds at its first values, of its conditions, of padding and of the folding."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.systems.dtrn import interest
from mtl_jax.systems.dtrn.interest import Setting, init_own, init_shared, interests, normalise

S, B, L, D, OUT, TASKS = 2, 5, 4, 8, 6, 3
BASE = Setting(behaviours=S, length=L, width=D, heads=2, layers=1, out=OUT)


class Case:
    """Random sequences, and parameters that are away from their first values."""

    def __init__(self, setting: Setting, moved: bool = True) -> None:
        self.setting = setting
        keys = jax.random.split(jax.random.key(0), 8)
        length = L + (setting.pool == "cand_token")
        self.x = jax.random.normal(keys[0], (S, B, length, D))
        valid = jax.random.bernoulli(keys[1], 0.6, (S, B, length)).at[0, 0].set(False)
        if setting.pool == "cand_token":
            valid = valid.at[:, :, 0].set(True)
        self.valid = valid.astype(jnp.float32)
        self.candidate = jax.random.normal(keys[2], (S, B, D))
        self.shared = init_shared(keys[3], setting)
        self.own = [init_own(k, setting) for k in jax.random.split(keys[4], TASKS)]
        if moved:
            rng = np.random.default_rng(0)

            def away(leaf: Any) -> Any:
                return leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)

            self.shared, self.own = jax.tree.map(away, (self.shared, self.own))

    def run(self, t: int, **changes: Any) -> np.ndarray:
        given = {"x": self.x, "valid": self.valid, "candidate": self.candidate, **changes}
        setting = given.pop("setting", self.setting)
        x = given["x"] * given["valid"][..., None]
        out, _ = jax.jit(
            lambda x, v, c: interests(self.shared, self.own[t], x, normalise(x), v, c, setting)
        )(x, given["valid"], given["candidate"])
        return np.asarray(out)


def variants(**fixed: Any) -> list[Setting]:
    grid = itertools.product(
        ("hyper", "table", "none", "separate"), ("target", "mean", "cand_token"), (True, False)
    )
    return [BASE._replace(conditioning=c, pool=p, norm_first=n, **fixed) for c, p, n in grid]


def name(setting: Setting) -> str:
    norm = "pre" if setting.norm_first else "post"
    return f"{setting.conditioning}-{setting.pool}-{norm}-{setting.layers}"


@pytest.mark.parametrize("setting", [*variants(), BASE._replace(layers=2)], ids=name)
def test_folded_and_naive_agree(setting: Setting) -> None:
    case = Case(setting)
    folded, naive = case.run(1), case.run(1, setting=setting._replace(fold=False))
    assert folded.shape == (B, S, OUT)
    np.testing.assert_allclose(folded, naive, atol=2e-5)


@pytest.mark.parametrize(
    "setting",
    [
        BASE._replace(pool="target"),
        BASE._replace(pool="mean", conditioning="table", norm_first=False),
        BASE._replace(pool="cand_token", conditioning="separate"),
    ],
    ids=name,
)
def test_padding_changes_nothing_and_an_empty_history_is_finite(setting: Setting) -> None:
    case = Case(setting)
    out = case.run(0)
    assert np.isfinite(out).all()
    noise = jnp.where(case.valid[..., None] > 0, case.x, 7.0)
    np.testing.assert_array_equal(out, case.run(0, x=noise))
    if setting.pool != "cand_token":
        np.testing.assert_array_equal(out[0, 0], 0)  # nobody's history


@pytest.mark.parametrize("conditioning", ["hyper", "table"])
def test_before_training_every_pair_is_one_plain_transformer(conditioning: Any) -> None:
    case = Case(BASE._replace(conditioning=conditioning), moved=False)
    plain = BASE._replace(conditioning="none")
    first = case.run(0, setting=plain)
    for t in range(TASKS):
        np.testing.assert_allclose(case.run(t), first, atol=1e-6)


def test_tasks_differ_by_their_embedding_alone() -> None:
    case = Case(BASE)
    before = [case.run(t) for t in range(2)]
    assert np.abs(before[0] - before[1]).max() > 1e-3
    case.own[0], case.own[1] = case.own[1], case.own[0]
    np.testing.assert_array_equal(case.run(0), before[1])
    np.testing.assert_array_equal(case.run(1), before[0])


def test_behaviour_types_differ_by_their_embedding() -> None:
    case = Case(BASE)
    same = jnp.broadcast_to(case.x[:1], case.x.shape)
    valid = jnp.broadcast_to(case.valid[1:], case.valid.shape)
    candidate = jnp.broadcast_to(case.candidate[:1], case.candidate.shape)
    out = case.run(0, x=same, valid=valid, candidate=candidate)
    assert np.abs(out[:, 0] - out[:, 1]).max() > 1e-3
    case.shared["behaviours"] = jnp.broadcast_to(
        case.shared["behaviours"][:1], case.shared["behaviours"].shape
    )
    out = case.run(0, x=same, valid=valid, candidate=candidate)
    np.testing.assert_allclose(out[:, 0], out[:, 1], atol=1e-6)


def test_one_step_reaches_the_embeddings() -> None:
    """The hypernetwork's last layer starts at zero: after one step the rest gets a gradient."""
    case = Case(BASE, moved=False)

    def loss(shared: Any, own: Any) -> Any:
        x = case.x * case.valid[..., None]
        args = (x, normalise(x), case.valid, case.candidate, BASE)
        return jnp.square(interests(shared, own, *args)[0] - 1).sum()

    step = jax.jit(jax.grad(loss, argnums=(0, 1)))
    grads = step(case.shared, case.own[0])
    assert float(jnp.abs(grads[1]["embedding"]).max()) == 0
    moved = jax.tree.map(lambda p, g: p - 0.01 * g, (case.shared, case.own[0]), grads)
    shared, own = step(*moved)
    for leaf in (own["embedding"], shared["behaviours"], shared["hyper"]["hidden"]["kernel"]):
        assert float(jnp.abs(leaf).max()) > 0


@pytest.mark.parametrize("length", [10, 40])
def test_attention_is_the_plain_one(length: int) -> None:
    """Short sequences on the CPU take another way through the same sums."""
    heads, width = 2, 16
    assert (length * width // heads <= interest.SMALL) == (length == 10)
    rng = np.random.default_rng(0)
    qkv = rng.normal(size=(2, 3, length, 3 * width))
    valid = np.ones((2, 3, length))
    valid[0, 0, :4] = 0
    found = interest.attention(jnp.asarray(qkv, jnp.float32), jnp.asarray(valid), heads)
    q, k, v = np.split(qkv.reshape(2, 3, length, 3, heads, -1), 3, axis=3)
    scores = np.einsum("sbihd,sbjhd->sbhij", q[..., 0, :, :], k[..., 0, :, :])
    scores = scores / np.sqrt(width // heads) + np.where(valid, 0, -np.inf)[:, :, None, None]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    want = np.einsum("sbhij,sbjhd->sbihd", weights, v[..., 0, :, :]).reshape(found.shape)
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_number_of_parameters_is_the_formula(layers: int) -> None:
    setting = BASE._replace(layers=layers)
    hyper = init_shared(jax.random.key(0), setting)
    plain = init_shared(jax.random.key(0), setting._replace(conditioning="none"))
    own = init_own(jax.random.key(0), setting)

    def count(tree: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    k, m = setting.embedding, setting.hidden
    added = (2 * k * m + m) + (m + 1) * 2 * layers * 2 * D + S * k
    assert count(hyper) - count(plain) == added
    assert count(own) == k
