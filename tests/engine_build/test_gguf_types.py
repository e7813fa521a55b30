"""Types and bytes of quantised GGUF files, held to what llama.cpp's own quantiser made of the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_build.errors import ExportError
from engine_build.ggml_quantize import ROWS_PER_PIECE, quantize_rows
from engine_build.gguf_tensors import Storage, TensorPlan
from engine_build.gguf_types import Mixture, WeightType, types_of

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a busy machine an example may take seconds."""
RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "q4_k_m_types.json").read_text())


@pytest.mark.parametrize("name", sorted(RECORDED["models"]))
def test_a_mixture_is_llama_cpps(name: str) -> None:
    """Every tensor of ``Q4_K_M`` takes the type that llama.cpp's quantiser gave it, in every layer."""
    model = RECORDED["models"][name]
    values = [layer for layer, code in enumerate(model["tensors"]["attn_v"]) if code != "-"]
    mixture = Mixture(model["layers"], model["experts"], tuple(values))
    plans, wanted = [TensorPlan("", "token_embd.weight", (64, 256), Storage.WEIGHT)], [model["token_embd"]]
    for tensor, codes in model["tensors"].items():
        for layer, code in enumerate(codes):
            if code != "-":
                shape = (64, model["columns"][tensor])
                plans.append(TensorPlan("", f"blk.{layer}.{tensor}.weight", shape, Storage.WEIGHT))
                wanted.append(RECORDED["codes"][code])

    assert [kind.name for kind in types_of(plans, WeightType.Q4_K_M, mixture)] == wanted


@pytest.mark.parametrize(
    ("columns", "embedding", "other"), [(256, "Q6_K", "Q4_K"), (96, "Q8_0", "Q5_0"), (48, "F16", "F16")]
)
def test_rows_that_do_not_divide_take_what_does(columns: int, embedding: str, other: str) -> None:
    """A row that is no multiple of 256 gets blocks of 32, and one that is no multiple of 32 stays in float16."""
    plans = [
        TensorPlan("", "token_embd.weight", (8, columns), Storage.WEIGHT),
        TensorPlan("", "blk.1.ffn_up.weight", (8, columns), Storage.WEIGHT),
    ]

    found = types_of(plans, WeightType.Q4_K_M, Mixture(layers=12, experts=0, value_layers=tuple(range(12))))

    assert [kind.name for kind in found] == [embedding, other]


@PATIENT
@given(st.integers(0, 2**32 - 1), st.integers(1, ROWS_PER_PIECE * 2 + 1), st.sampled_from([32, 96, 256]))
def test_eight_bits_are_those_of_the_reference(seed: int, rows: int, columns: int) -> None:
    """For ``Q8_0`` the library writes exactly what the gguf package's own implementation writes, in pieces or not."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)

    written = quantize_rows(values, GGMLQuantizationType.Q8_0)

    assert written.tobytes() == quants.quantize(values, GGMLQuantizationType.Q8_0).tobytes()


@pytest.mark.parametrize(("kind", "allowed"), [("Q4_K", 0.08), ("Q6_K", 0.02), ("Q5_0", 0.05), ("Q5_K", 0.04)])
def test_values_survive_within_the_types_error(kind: str, allowed: float) -> None:
    """What is read back differs by the few percent of the values' spread that the type is known for."""
    encoding = GGMLQuantizationType[kind]
    values = np.random.default_rng(3).standard_normal((300, 512)).astype(np.float32)

    back = quants.dequantize(quantize_rows(values, encoding).reshape(300, -1), encoding)

    assert 0 < float(np.sqrt(np.mean((back - values) ** 2))) < allowed


def test_rows_of_a_wrong_width_are_refused() -> None:
    """A type whose blocks do not fit is refused by name rather than written beyond the row."""
    with pytest.raises(ExportError, match=r"rows of 96 values do not divide into blocks of 256 for Q4_K"):
        quantize_rows(np.zeros((1, 96), dtype=np.float32), GGMLQuantizationType.Q4_K)
