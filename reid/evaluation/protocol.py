"""The protocol beside a result, and the model it is of, in words."""

from collections.abc import Mapping
from typing import Any

from reid.config import Config
from reid.names import Method

# What a choice of the protocol means, for readers who do not know our words.
MEANINGS = {
    "dataset": "whose queries and gallery images these are",
    "trained_on": "dataset that the model was trained on",
    "pretrained": "network and weights as others trained them; it is not known here on which images",
    "features": "tokens that make the embedding",
    "flip_test": "whether the mirrored image is embedded too",
    "precision": "number format of the model's arithmetic",
    "junk": "a gallery image of the query's identity does not count if it also shares this with the query",
    "ap": "how average precision is summed",
    "distance": "how embeddings are compared",
    "gallery": "which gallery images are ranked",
    "draws": "random galleries whose figures are averaged",
    "rerank": "k-reciprocal re-ranking, with the help of the other queries",
    "query_expansion": "nearest gallery images added to each query",
    "database_augmentation": "nearest neighbours added to each gallery image",
}

METHODS: Mapping[Method, str] = {"dcal": "DCAL", "glca": "GLCA", "pwca": "PWCA", "baseline": "baseline"}


def model_name(config: Config) -> str:
    """A method and its network in the words of a title."""
    return f"{METHODS[config.model.method]} on {config.model.backbone}"


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """One line of the choices that were made, without those that are off."""

    def text(value: Any) -> str:
        return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)

    return ", ".join(
        name if value is True else f"{name} {text(value)}"
        for name, value in protocol.items()
        if value is not None and value is not False
    )
