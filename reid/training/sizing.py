"""What a recipe leaves to the number of training images: P, K, epochs and how often it evaluates."""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TypeVar

from reid.config import ReidTrainOptions, TrainOptions

STEPS = 400  # what a pretrained backbone takes to a set of hundreds of images, by docs/results.md
LEAST_EPOCHS = 10
MOST_EACH = 4
EVALUATIONS = 10

Options = TypeVar("Options", bound=TrainOptions)


def with_epochs(options: Options, steps: int) -> Options:
    """The options with epochs, of so many steps, and those between evaluations in number where the images decide."""
    epochs = options.epochs or max(LEAST_EPOCHS, round(STEPS / steps))
    every = options.eval_every if options.eval_every >= 0 else max(1, round(epochs / EVALUATIONS))
    return options.model_copy(update={"epochs": epochs, "eval_every": every})


def with_batch(options: ReidTrainOptions, labels: Sequence[int]) -> ReidTrainOptions:
    """The options with a batch of P x K that these images can fill, where K is `auto`.

    K is the images of the middle identity, 2 to 4, and P what `batch_size` leaves for it, 2 at least. Fewer identities
    than that are all in every batch, each with as many images as fill it. The batch is never larger than asked for.
    """
    if options.images_per_identity:
        return options
    counts = Counter(labels)
    k = min(MOST_EACH, options.batch_size // 2, max(2, int(median(counts.values()))))
    p = options.batch_size // k
    if len(counts) < p:
        p = max(2, len(counts))
        k = options.batch_size // p
    return options.model_copy(update={"batch_size": p * k, "images_per_identity": k})
