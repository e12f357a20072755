"""PNN: the head sees products besides (Qu et al., ICDM 2016), here of the target and the pooled history, by element."""

from __future__ import annotations

from model.zoo.network import Network


class Pnn(Network):
    """BaseModel with the crossed part."""

    parts = ("side", "target", "pooled", "crossed")
