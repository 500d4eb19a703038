"""Arrays of any number type as pictures and back, and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stylize.arrays import as_array, as_picture, painted_dtype, value_range


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_come_back_as_they_were(dtype: Any, channels: int) -> None:
    whole = np.issubdtype(dtype, np.integer)
    most = np.iinfo(dtype).max if whole and np.dtype(dtype).itemsize < 4 else 2**20 if whole else 1
    array = (np.random.default_rng(0).random((24, 32, channels)) * most).astype(dtype)
    picture = as_picture(array, value_range(np.dtype(dtype)), "noise")
    assert picture.name == "noise"
    assert picture.rgb.shape == (1, 3, 24, 32)
    assert (picture.alpha is None) == (channels == 3)
    back = as_array(picture, np.dtype(dtype))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def test_what_is_no_number_is_black_and_flat_layers_are_no_error() -> None:
    data = np.array([[np.nan, np.inf, -np.inf, 0.5]])
    assert as_picture(data, (0.0, 1.0)).rgb[0, 0, 0].tolist() == [0, 1, 0, 0.5]
    assert as_picture(np.full((2, 2), 7), (7.0, 7.0)).rgb.sum() == 0


@pytest.mark.parametrize(
    ("dtype", "painted", "white"),
    [
        (np.uint8, np.uint8, 255),
        (np.int8, np.uint8, 127),
        (bool, np.uint8, 1),
        (np.uint16, np.uint16, 65535),
        (np.int64, np.uint16, 2**63),
        (np.float64, np.float32, 1),
    ],
)
def test_the_depth_of_a_layer_is_kept(dtype: Any, painted: Any, white: float) -> None:
    assert painted_dtype(np.dtype(dtype)) == painted
    assert value_range(np.dtype(dtype)) == (0, white)
