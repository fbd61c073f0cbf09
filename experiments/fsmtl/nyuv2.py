"""FS-PCGrad on NYUv2: classes, depth and surface normals of rooms.

Paper: FS-MTL (arXiv 2211.13723), the table of NYUv2, on MTAN's 654 test images. The paper reports
(mIoU, pixel accuracy | absolute, relative error | mean, median angle, within 11.25, 22.5, 30 |
Delta_m in %, negative is better):

    PCGrad     38.06 64.64 | .5550 .2325 | 27.41 22.80 23.86 49.83 63.14 |  3.97
    F-PCGrad   40.05 65.42 | .5429 .2243 | 27.38 23.00 23.47 49.35 62.74 |  3.14
    CAGrad     39.79 65.49 | .5486 .2250 | 26.31 21.58 25.61 52.36 65.58 |  0.20
    F-CAGrad   40.93 66.68 | .5285 .2162 | 25.43 20.39 27.99 54.82 67.56 | -3.78
    IMTL       39.35 65.60 | .5426 .2256 | 26.02 21.19 26.20 53.13 66.24 | -0.76
    F-IMTL     40.42 65.61 | .5389 .2121 | 25.03 19.75 28.90 56.19 68.72 | -4.77

Its text does not give the radius of every row. In what the authors released only F-PCGrad's is
named, 0.05, hence the method here; whether that one was adaptive is not, we take the plain radius.

Protocol, as in the authors' code: 288 x 384 images as MTAN's authors prepared them, enlarged by 1,
1.2 or 1.5 and mirrored at random; Adam 1e-4, halved after 100 epochs; batch 2, 200 epochs; shared
parameters and heads normalised apart.

    make train EXPERIMENT=experiments/fsmtl/nyuv2.py ARGS="--config.data.manual_dir=DIR"

DIR holds train/ and val/, each with image/, label/, depth/ and normal/ of 0.npy, 1.npy, ...

Not run by us on the real data, so no number of ours stands here. What differs:
- the network: `segnet_small` in place of SegNet-MTAN, so our numbers are not the table's;
- 79 of the 795 training images are held out, and the best epoch is chosen on their Delta_m. The
  authors have no validation split and average the last ten epochs on test. For nearly their
  training set take `--config.data.holdout=1 --config.optim.step_every=39700` and read `last/test`;
- `optim.step_every` is 100 epochs of 358 steps: another holdout or batch size needs another one;
- losses and metrics are over all labelled pixels of a batch or a split, where the authors average
  over images or batches; masks are those of `dense_losses.py`.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.vision.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="nyuv2",
        data=DataConfig(name="nyuv2", holdout=79),
        model=ModelConfig(name="segnet_small", widths=(32, 64, 128, 256)),
        method=MethodConfig(
            aggregator="pcgrad",
            flat=FlatConfig(rho=0.05, adaptive=False, norm="separate"),
        ),
        optim=OptimConfig(name="adam", lr=1e-4, schedule="step", step_every=35_800),
        train=TrainConfig(epochs=200, batch_size=2, select="validation/delta_m", select_mode="min"),
    )
