"""The catalogue of GPUs, and reading lists such as ``2xL40S``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError
from config.gpus import all_gpus, find_gpu, read_gpus


def test_names_and_aliases_mean_one_gpu_each() -> None:
    """No spelling stands for two GPUs, and each finds its own."""
    for gpu in all_gpus():
        for text in (gpu.name, *gpu.aliases, gpu.name.lower(), gpu.name.replace(" ", "")):
            assert find_gpu(text) == gpu


@pytest.mark.parametrize(
    ("name", "capability", "gib"),
    [("H100", (9, 0), 80), ("b200", (10, 0), 180), ("B300", (10, 3), 270), ("L40S", (8, 9), 45), ("t4", (7, 5), 15),
     ("rtx 5090", (12, 0), 32), ("DGX Spark", (12, 1), 120)],
)  # fmt: skip
def test_facts_of_well_known_gpus(name: str, capability: tuple[int, int], gib: int) -> None:
    """Compute capability and memory are those of the product."""
    gpu = find_gpu(name)

    assert gpu.compute_capability == capability
    assert gpu.memory_bytes / 2**30 == pytest.approx(gib, rel=0.04)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2xL40S", [(2, "NVIDIA L40S")]),
        ("8 x NVIDIA H100 80GB HBM3", [(8, "NVIDIA H100 80GB HBM3")]),
        ("h200", [(1, "NVIDIA H200")]),
        ("1xH100, 2*L4", [(1, "NVIDIA H100 80GB HBM3"), (2, "NVIDIA L4")]),
        ("3090", [(1, "NVIDIA GeForce RTX 3090")]),
    ],
)
def test_lists_of_gpus_are_read(text: str, expected: list[tuple[int, str]]) -> None:
    """Counts, several kinds, and names as people write them."""
    assert [(count, gpu.name) for count, gpu in read_gpus(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2xL50S", "no GPU is known as 'L50S'; known are for instance: NVIDIA L40S"),
        ("0xL4", "'0xL4': the number of GPUs must be from 1 to 64"),
        ("65xL4", "must be from 1 to 64"),
        ("L4,,L4", "is no list of GPUs"),
        ("zzzzzz", "no GPU is known as 'zzzzzz'"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    """A slip of the pen costs one look at the message."""
    with pytest.raises(ConfigError) as caught:
        read_gpus(text)

    assert message in str(caught.value)


@given(st.text(max_size=20))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever is typed is read or refused with a line."""
    try:
        assert read_gpus(text)
    except ConfigError as error:
        assert error.problems
