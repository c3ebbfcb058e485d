"""The part of a network that turns an embedding into one logit a class."""

from torch import nn

from medvision.models.catalog import Head


def build_head(kind: Head, n_features: int, n_classes: int) -> nn.Module:
    """Return a head, untrained: embeddings (B, n_features) to logits (B, n_classes)."""
    if kind == "linear":
        return nn.Linear(n_features, n_classes)
    return nn.Sequential(
        nn.Dropout(0.3), nn.Linear(n_features, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, n_classes)
    )
