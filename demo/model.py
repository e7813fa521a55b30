"""The whole demo checkpoint as one PyTorch module."""

from __future__ import annotations

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
