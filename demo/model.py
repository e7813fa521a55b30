"""The whole demo checkpoint as one PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from demo.model_config import DemoConfig
from demo.text_model import LanguageModel
from demo.vision_model import Projector, VisionTower


class _Inner(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.language_model = LanguageModel(config)
        self.vision_tower = VisionTower(config)
        self.embed_vision = Projector(config)


class DemoModel(nn.Module):
    """The whole checkpoint, named as published: ``model.language_model``, ``model.vision_tower``, ``model.embed_vision``."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Inner(config)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        """Encode pictures into the text model's space."""
        projected: Tensor = self.model.embed_vision(self.model.vision_tower(pixels))
        return projected

    @torch.no_grad()
    def inherit(self, mixture: Mapping[str, Tensor]) -> None:
        """Start a dense model from a mixture's state dict: all that both have, and its shared MLP as a part of the wider one.

        What the wider MLP has besides reads at random and writes nothing yet.
        """
        for name, own in self.state_dict().items():
            value = mixture[name]
            if "language_model" in name and name.endswith("mlp.down_proj.weight"):
                loudness = mixture[name.replace("mlp.down_proj", "post_feedforward_layernorm_1")]
                own.zero_()[:, : value.shape[1]] = value * loudness[:, None]
            else:
                own[: len(value)] = value
