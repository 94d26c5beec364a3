import numpy as np
import pytest

from selfplay.league import weights as weight_files
from selfplay.league.errors import LeagueError


def arrays():
    return {
        "core.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        "count": np.array(7, np.int64),
        "half": np.ones(3, np.float16),
    }


def test_weights_come_back_exactly(tmp_path):
    digest = weight_files.save(tmp_path, arrays())
    back = weight_files.load(tmp_path, digest, "main-000001")
    assert back.keys() == arrays().keys()
    for name, array in arrays().items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert np.array_equal(back[name], array)


def test_equal_weights_share_one_file_and_others_do_not(tmp_path):
    first = weight_files.save(tmp_path, arrays())
    assert weight_files.save(tmp_path, arrays()) == first
    assert weight_files.save(tmp_path, arrays() | {"count": np.array(8, np.int64)}) != first
    assert len(list(tmp_path.iterdir())) == 2  # and no temporary files


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"?", lambda data: b""])
def test_a_damaged_file_is_named_and_the_same_weights_heal_it(tmp_path, damage):
    digest = weight_files.save(tmp_path, arrays())
    path = weight_files.path_of(tmp_path, digest)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LeagueError, match=digest) as caught:
        weight_files.load(tmp_path, digest, "main-000001")
    assert "main-000001" in str(caught.value)
    weight_files.save(tmp_path, arrays())
    weight_files.load(tmp_path, digest, "main-000001")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LeagueError, match="main-000001 cannot be read"):
        weight_files.load(tmp_path, "0" * 64, "main-000001")


def test_only_unused_weights_are_removed(tmp_path):
    kept = weight_files.save(tmp_path, arrays())
    weight_files.save(tmp_path, {"w": np.zeros(1)})
    (tmp_path / f"{'a' * 64}.safetensors.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    weight_files.keep_only(tmp_path, {kept})
    assert {path.name for path in tmp_path.iterdir()} == {f"{kept}.safetensors", "notes.txt"}
