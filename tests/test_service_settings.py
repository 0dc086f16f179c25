"""Settings and the reference recipe: TOML in, unknown keys refused, bounds kept."""

from pathlib import Path

import pytest

from service.errors import InvalidRequest
from service.reference import EffectSettings, LibrarySettings, load_settings
from service.settings import InvalidSettings, Settings, from_table, load


def test_the_shipped_settings_are_the_defaults() -> None:
    assert load() == Settings()


def test_changes_that_are_none_change_nothing() -> None:
    assert load(port=0, host=None) == Settings(port=0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"prot": 1}, "unknown key 'prot'"),
        ({"port": "1"}, "expected int"),
        ({"port": True}, "expected int"),
        ({"port": 70000}, "expected 0 to 65535"),
        ({"engine_workers": 0}, "engine_workers is 0"),
    ],
)
def test_what_is_refused(table: dict, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words):
        from_table(table)


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("port = ")
    with pytest.raises(InvalidSettings, match="not TOML"):
        load(tmp_path / "bad.toml")


def test_the_reference_recipe_is_the_default_and_refuses_unknown_keys(tmp_path: Path) -> None:
    assert load_settings() == (EffectSettings(), LibrarySettings())
    (tmp_path / "r.toml").write_text("[effect]\nconvention = 'paper'\nagreement = 1\n")
    with pytest.raises(InvalidRequest, match="agreement"):
        load_settings(tmp_path / "r.toml")


def test_every_effect_setting_is_in_the_hash() -> None:
    changed = {"scheme": "sobol", "distribution": "paper", "normalise": "standardise", "normalise_by": ("source",),
               "convention": "reference", "min_references": 6, "agree": 0.9}  # fmt: skip
    assert {*changed, "guidance"} == set(EffectSettings.__dataclass_fields__)  # effects have no guidance but 1
    hashes = {EffectSettings(**{name: value}).hash() for name, value in changed.items()}
    assert len(hashes | {EffectSettings().hash()}) == len(changed) + 1
