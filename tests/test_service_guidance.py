"""Guidance is for pictures: settings of effects refuse every scale but 1."""

from pathlib import Path

import pytest

from service.errors import InvalidRequest
from service.reference import EffectSettings, load_settings


def test_effects_refuse_guidance(tmp_path: Path) -> None:
    assert EffectSettings().guidance == 1.0
    with pytest.raises(InvalidRequest, match=r"guidance: got 2\.0, expected 1"):
        EffectSettings(guidance=2.0)
    recipe = tmp_path / "reference.toml"
    recipe.write_text("[effect]\nguidance = 3.0\n[library]\n")
    with pytest.raises(InvalidRequest, match="guide pictures only"):
        load_settings(recipe)
