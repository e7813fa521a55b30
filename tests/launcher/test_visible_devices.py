"""Which GPUs are visible, by both variables, and what is said about entries that fit nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.devices import DeviceVariables, device_variables
from launcher.hardware.gpu_messages import Device
from launcher.hardware.visible_devices import Selection, select_devices

GPUS = tuple(Device(index, uuid=f"GPU-{letter}{index}0000000", name="L40S") for index, letter in enumerate("abba"))
DIVIDED = (
    Device(0, uuid="MIG-aa11", parent_uuid="GPU-d0000000", mig_profile="3g.40gb", mig_instances=(1, 0), name="H100"),
    Device(0, uuid="MIG-aa22", parent_uuid="GPU-d0000000", mig_profile="3g.40gb", mig_instances=(2, 0), name="H100"),
    Device(1, uuid="GPU-e1111111", name="H100"),
)


def _cuda(value: str | None, devices: tuple[Device, ...] = GPUS) -> Selection:
    return select_devices(devices, DeviceVariables(cuda_visible_devices=value))


def _runtime(value: str | None, devices: tuple[Device, ...] = GPUS) -> Selection:
    return select_devices(devices, DeviceVariables(nvidia_visible_devices=value))


def _indices(selection: Selection) -> list[int]:
    return [device.index for device in selection.devices]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 3 , 1 ", [3, 1]),
        ("GPU-b10000000", [1]),
        ("GPU-b2,GPU-a0", [2, 0]),
        ("gpu-B2", [2]),
        ("1x", [1]),
        ("0,2,-1,1", [0, 2]),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(value: str | None, expected: list[int]) -> None:
    """Numbers and UUIDs, whole or begun, in the order given; -1 ends the list."""
    selection = _cuda(value)

    assert _indices(selection) == expected
    assert selection.problems == ()


@pytest.mark.parametrize("value", ["", " ", "-1", "NoDevFiles"])
def test_no_gpu_is_a_wish_that_is_reported(value: str) -> None:
    """Whoever hides all GPUs may have meant it; the report says why there are none."""
    selection = _cuda(value)

    assert selection.devices == ()
    assert [problem.code for problem in selection.problems] == ["gpus-hidden"]
    assert "all 4 GPUs" in selection.problems[0].what


@pytest.mark.parametrize(
    ("value", "expected", "words"),
    [
        ("0,9,1", [0], "'9' is no GPU"),
        ("0,,1", [0], "'' is no GPU"),
        ("1,GPU-zz,2", [1], "'GPU-zz' is no GPU"),
        ("1,GPU-,2", [1], "'GPU-' fits several"),
        ("2,cuda:0", [2], "'cuda:0' is no GPU"),
    ],
)
def test_nothing_counts_from_an_invalid_entry_on(value: str, expected: list[int], words: str) -> None:
    """As CUDA does it; and unlike CUDA we say so."""
    selection = _cuda(value)

    assert _indices(selection) == expected
    assert [problem.code for problem in selection.problems] == ["visible-devices"]
    assert words in selection.problems[0].what


@pytest.mark.parametrize("value", ["0,1,0", "1,GPU-b1"])
def test_a_gpu_named_twice_hides_all(value: str) -> None:
    """That is what CUDA makes of it."""
    selection = _cuda(value)

    assert selection.devices == ()
    assert "twice" in selection.problems[0].what


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["MIG-aa11", "MIG-aa22", "GPU-e1111111"]),
        ("MIG-aa22", ["MIG-aa22"]),
        ("MIG-aa2", ["MIG-aa22"]),
        ("MIG-GPU-d0000000/2/0", ["MIG-aa22"]),
        ("0", ["MIG-aa11"]),
        ("GPU-d0", ["MIG-aa11"]),
        ("1", ["GPU-e1111111"]),
        ("MIG-aa", []),
        ("MIG-GPU-d0000000/7/0", []),
    ],
)
def test_slices_go_by_their_own_names(value: str | None, expected: list[str]) -> None:
    """A slice's UUID, its old name, or its GPU, which stands for the first slice."""
    assert [device.uuid for device in _cuda(value, DIVIDED).devices] == expected


@pytest.mark.parametrize(
    "value", [None, "", "all", "ALL", "void", "/var/run/nvidia-container-devices", "nvidia.com/gpu=all"]
)
def test_what_the_runtime_let_in_is_there(value: str | None) -> None:
    """Also with "void", which CDI sets where it has added GPUs by itself."""
    assert _runtime(value) == Selection(GPUS)


def test_none_hides_all() -> None:
    """The runtime's word for driver without GPUs."""
    selection = _runtime("none")

    assert selection.devices == ()
    assert "NVIDIA_VISIBLE_DEVICES='none'" in selection.problems[0].what


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        ("2,3", 2, [0, 1]),
        ("7", 1, [0]),
        ("2,3", 4, [2, 3]),
        ("0", 4, [0]),
        ("nvidia.com/gpu=1", 4, [1]),
    ],
)
def test_numbers_for_the_runtime_count_only_where_it_has_not_acted(value: str, count: int, expected: list[int]) -> None:
    """Inside a container numbers start from 0 again: two GPUs by the host's numbers 2 and 3 are all that there are."""
    assert _indices(_runtime(value, GPUS[:count])) == expected


def test_uuids_for_the_runtime_are_compared() -> None:
    """Present ones stay, in the order given, and missing ones are reported."""
    selection = _runtime("GPU-b2,GPU-nowhere,GPU-a0")

    assert _indices(selection) == [2, 0]
    assert "GPU-nowhere" in selection.problems[0].what


def test_slices_for_the_runtime() -> None:
    """``0:1`` is the second slice of the first GPU; a GPU's number stands for all its slices."""
    assert [device.uuid for device in _runtime("0:1", (*DIVIDED, GPUS[2])).devices] == ["MIG-aa22"]
    assert [device.uuid for device in _runtime("0", DIVIDED).devices] == ["MIG-aa11", "MIG-aa22"]


def test_cuda_counts_what_the_runtime_left() -> None:
    """Both together mean what they would mean inside a container."""
    selection = select_devices(GPUS, DeviceVariables("1", nvidia_visible_devices="1,3"))

    assert _indices(selection) == [3]


def test_order_matters_only_between_different_gpus() -> None:
    """Numbers are ambiguous where GPUs differ, unless CUDA is told to count as we do, or UUIDs are given."""
    mixed = (GPUS[0], Device(1, uuid="GPU-c1", name="RTX 4090"))

    assert [problem.code for problem in _cuda("1", mixed).problems] == ["device-order"]
    assert _cuda("GPU-c1", mixed).problems == ()
    assert select_devices(mixed, DeviceVariables("1", cuda_device_order="PCI_BUS_ID")).problems == ()
    assert _cuda("1").problems == ()


def test_no_gpus_no_problem() -> None:
    """Variables that choose among nothing are nobody's fault."""
    assert _runtime("all", ()) == _cuda(None, ()) == Selection(())


entries = st.sampled_from(["0", "1", "3", "7", "-1", "GPU-a", "GPU-b1", "MIG-aa11", "MIG-", "", "x", "0:1"])


@given(st.lists(entries, max_size=5).map(",".join), st.sampled_from([GPUS, DIVIDED, GPUS[:1]]))
def test_any_list_gives_devices_once_and_a_reason_for_each_loss(value: str, devices: tuple[Device, ...]) -> None:
    """No value breaks it; no device comes twice; an empty result is always explained."""
    for selection in (_cuda(value, devices), _runtime(value, devices)):
        assert len(set(selection.devices)) == len(selection.devices)
        assert set(selection.devices) <= set(devices)
        assert selection.devices or selection.problems


def test_variables_come_from_the_environment() -> None:
    """Unset and empty are different things."""
    assert device_variables({}) == DeviceVariables()
    assert device_variables({"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == DeviceVariables(
        "", cuda_device_order="PCI_BUS_ID"
    )
