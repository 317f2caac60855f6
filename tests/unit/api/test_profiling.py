"""What a profile says of a layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.api.profiling import MeasuredStep, padded_size, profile_layout
from nas.config.sections import DetectorSpec
from nas.profiling.memory import Training
from search_spaces.layout import Layout


@pytest.mark.parametrize(
    ("short_side", "size"), [(800, (800, 1344)), (48, (64, 96)), (32, (32, 64))]
)
def test_images_are_padded_to_whole_windows_of_32_pixels(short_side: int, size: tuple[int, int]):
    assert padded_size(short_side) == size  # the long side is 1333/800 of the short one


def test_a_profile_as_json_has_one_form_for_what_was_measured_and_one_for_what_did_not_fit():
    layout = Layout.parse("C1-C1-C1-C1@16")
    profile = profile_layout(layout, DetectorSpec(name="fcos"), 3, Training((1, 3, 64, 64)))
    assert profile.to_dict()["batch_shape"] == [1, 3, 64, 64]
    assert sum(profile.memory_by_part_gib.values()) == pytest.approx(
        profile.memory_predicted_gib, abs=0.001
    )
    measured = replace(profile, measured=MeasuredStep("card", 1.5, 2.0, 0.1, 30.0))
    assert measured.to_dict()["measured"] == {
        "device": "card",
        "memory_peak_gib": 1.5,
        "memory_reserved_gib": 2.0,
        "step_s": 0.1,
        "fps": 30.0,
    }
    full = replace(profile, measured=MeasuredStep("card", out_of_memory=True))
    assert full.to_dict()["measured"] == {"device": "card", "out_of_memory": True}
