"""Finding the model's files, and refusing what cannot be served with the file and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import ModelSettings
from launcher.errors import ExitCode, LaunchError
from launcher.model import find_model
from tests.fakes.gguf_files import gemma4_values, write_gguf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, a vision tower and a tokenizer."""
    write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values())
    write_gguf(tmp_path / "mmproj-f16.gguf", "clip", {"clip.vision.projection_dim": 128})
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def _refused(settings: ModelSettings) -> str:
    with pytest.raises(LaunchError) as caught:
        find_model(settings)
    assert caught.value.code is ExitCode.CANNOT_START
    assert "\n" not in caught.value.message
    return caught.value.message


def test_folder_gives_weights_tower_and_tokenizer(folder: Path) -> None:
    """Everything that lies beside the model is found, and the sizes are added up."""
    model = find_model(ModelSettings(path=folder))

    assert model.weights == folder / "model.gguf"
    assert model.projector == folder / "mmproj-f16.gguf"
    assert model.tokenizer == folder / "tokenizer.json"
    assert model.weight_bytes == sum(file.stat().st_size for file in folder.glob("*.gguf"))
    assert model.names == ("Tiny",)
    assert model.shape.trained_context == 8192


def test_file_gives_the_same_as_its_folder(folder: Path) -> None:
    """Pointing at the file finds its neighbours as well."""
    assert find_model(ModelSettings(path=folder / "model.gguf")) == find_model(ModelSettings(path=folder))


def test_model_without_tower_and_tokenizer_is_text_only(tmp_path: Path) -> None:
    """Neither neighbour is required."""
    model = find_model(ModelSettings(path=write_gguf(tmp_path / "x.gguf", "gemma4", gemma4_values())))

    assert model.projector is None
    assert model.tokenizer is None


@pytest.mark.parametrize(
    ("layers", "more", "names"),
    [
        (30, {"gemma4.expert_count": 128}, ("google/gemma-4-26b-a4b-it", "google/gemma-4-26B-A4B-it")),
        (60, {}, ("google/gemma-4-31b-it", "google/gemma-4-31B-it")),
    ],
)
def test_published_models_have_their_published_names(
    tmp_path: Path, layers: int, more: dict[str, int], names: tuple[str, ...]
) -> None:
    """The real models are served under NVIDIA's and Google's names, whatever the file is called."""
    path = write_gguf(tmp_path / "q4.gguf", "gemma4", gemma4_values(layers) | more)

    assert find_model(ModelSettings(path=path)).names == names


def test_served_names_win(folder: Path) -> None:
    """NIM_SERVED_MODEL_NAME replaces the model's own names."""
    assert find_model(ModelSettings(path=folder, served_names=("a", "b"))).names == ("a", "b")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path to nothing says which."""
    path = tmp_path / "absent.gguf"

    assert _refused(ModelSettings(path=path)) == f"the model file {path} does not exist"


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    """A folder without a model says so."""
    assert "holds no GGUF model" in _refused(ModelSettings(path=tmp_path))


def test_several_models_are_listed(folder: Path) -> None:
    """The launcher does not guess which of two models is meant."""
    write_gguf(folder / "other.gguf", "gemma4", gemma4_values())

    message = _refused(ModelSettings(path=folder))

    assert "model.gguf, other.gguf" in message


def test_several_towers_are_listed(folder: Path) -> None:
    """Nor which of two vision towers."""
    write_gguf(folder / "mmproj-f32.gguf", "clip")

    assert "several vision towers: mmproj-f16.gguf, mmproj-f32.gguf" in _refused(ModelSettings(path=folder))


def test_named_tower_settles_it(folder: Path) -> None:
    """NIM_MMPROJ_PATH chooses one."""
    chosen = write_gguf(folder / "mmproj-f32.gguf", "clip")

    assert find_model(ModelSettings(path=folder, mmproj_path=chosen)).projector == chosen


def test_other_architecture_is_named(tmp_path: Path) -> None:
    """A Llama is refused as what it is."""
    path = write_gguf(tmp_path / "llama.gguf", "llama", {"llama.block_count": 2})

    assert _refused(ModelSettings(path=path)) == f"{path} is not a Gemma 4: general.architecture is llama"


def test_text_file_is_refused(tmp_path: Path) -> None:
    """A file that is no GGUF at all is refused as such."""
    path = tmp_path / "model.gguf"
    path.write_text("hello")

    assert "is not a usable GGUF file: it does not start with the letters GGUF" in _refused(ModelSettings(path=path))


def test_empty_file_is_refused(tmp_path: Path) -> None:
    """An empty file does not trip the reader."""
    path = tmp_path / "model.gguf"
    path.touch()

    assert "is not a usable GGUF file" in _refused(ModelSettings(path=path))


def test_header_without_layers_is_damaged(tmp_path: Path) -> None:
    """A Gemma 4 that does not tell its size cannot be planned for."""
    path = write_gguf(tmp_path / "model.gguf", "gemma4", {"gemma4.context_length": 10})

    assert "is damaged" in _refused(ModelSettings(path=path))


def test_tower_of_another_model_is_refused(folder: Path) -> None:
    """A vision tower whose output has another width would crash the engine later."""
    other = write_gguf(folder / "other-mmproj.gguf", "clip", {"clip.vision.projection_dim": 2816})

    message = _refused(ModelSettings(path=folder, mmproj_path=other))

    assert "made for width 2816, not 128" in message


def test_text_model_is_no_tower(folder: Path) -> None:
    """NIM_MMPROJ_PATH must not point at the text model."""
    assert "is not a vision tower" in _refused(ModelSettings(path=folder, mmproj_path=folder / "model.gguf"))


def test_missing_tokenizer_file_is_named(folder: Path) -> None:
    """NIM_TOKENIZER_PATH must exist."""
    assert "absent.json does not exist" in _refused(ModelSettings(path=folder, tokenizer_path=folder / "absent.json"))


def test_split_model_counts_all_parts(tmp_path: Path) -> None:
    """Of a split model the first part is loaded and all parts are counted."""
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf", "gemma4", gemma4_values())
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", "gemma4")

    model = find_model(ModelSettings(path=tmp_path))

    assert model.weights == first
    assert model.weight_bytes == first.stat().st_size + second.stat().st_size


def test_split_model_with_a_missing_part_is_refused(tmp_path: Path) -> None:
    """A part that was not downloaded is named."""
    write_gguf(tmp_path / "m-00001-of-00002.gguf", "gemma4", gemma4_values())

    assert "m-00002-of-00002.gguf does not exist" in _refused(ModelSettings(path=tmp_path))
