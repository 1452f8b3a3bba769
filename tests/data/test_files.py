"""Files that nothing was put into."""

import numpy as np
import pytest

from unmask.files import read_arrays, read_metadata, write_arrays


@pytest.mark.parametrize("metadata", [None, {"images": "a"}])
@pytest.mark.parametrize("arrays", [{}, {"x": np.arange(3)}])
def test_what_is_written_can_be_read_also_without_arrays_or_metadata(tmp_path, arrays, metadata):
    path = tmp_path / "some.safetensors"
    write_arrays(path, arrays, metadata)
    read = read_arrays(path)
    assert list(read) == list(arrays)
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    assert read_metadata(path) == (metadata or {})
