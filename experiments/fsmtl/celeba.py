"""FS-CAGrad on CelebA: 40 attributes of a face, each a task of two classes.

Paper: FS-MTL (arXiv 2211.13723), mean error over the attributes, in %. The paper reports

    single-task 8.77   LS 9.99   UW 9.66
    MGDA 9.96 -> FS 9.22   PCGrad 8.69 -> 8.23   CAGrad 8.52 -> 8.22   IMTL 8.88 -> 8.24

Protocol, as in the authors' code: official splits, 64 x 64 images, ResNet-18 with the CIFAR stem
(2,048 features) and linear heads; Adam 5e-4, times 0.85 every 10 epochs (6,350 steps); batch 256,
100 epochs; adaptive radius 2, shared parameters and heads normalised apart; CAGrad c 0.4. Chosen is
the epoch with the best mean accuracy on validation, and the code reports that accuracy: compare
100 - `best/validation/accuracy` in %. Nothing was chosen on `best/test/accuracy`.

    make train EXPERIMENT=experiments/fsmtl/celeba.py ARGS="--config.data.manual_dir=DIR"

DIR holds list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba/*.jpg. The first start
prepares the set; images are then read from disk while the step runs.

Not run by us on the real data, so no number of ours stands here. What differs from the authors'
code: one forward pass instead of 40 before the perturbation, so batch statistics move once a step;
a pixel's value does not depend on the extremes of its image (`mtl_jax/data/celeba_files.py`); the
first decay comes after 10 epochs, theirs after 9; 210 images of every epoch, other ones each time,
fill no batch and are left out. Tasks are walked one by one (`strategy="scan"`): all at once, the
perturbed passes would hold 40 batches of feature maps. By the count of passes a step costs 67 times
one of the plain summed loss.
"""

from mtl_jax.config import FlatConfig, MethodConfig, OptimConfig, TrainConfig
from mtl_jax.systems.vision.config import Config, DataConfig, ModelConfig


def get_config() -> Config:
    """The experiment."""
    return Config(
        name="celeba",
        data=DataConfig(name="celeba"),
        model=ModelConfig(name="resnet18_celeba"),
        method=MethodConfig(
            aggregator="cagrad",
            options={"c": 0.4},
            flat=FlatConfig(rho=2.0, adaptive=True, norm="separate"),
            strategy="scan",
        ),
        optim=OptimConfig(name="adam", lr=5e-4, schedule="step", step_every=6350, step_factor=0.85),
        train=TrainConfig(epochs=100, batch_size=256, select="validation/accuracy"),
    )
