import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selfplay import checkpoint
from selfplay.errors import CheckpointError

DTYPES = [np.bool_, np.int8, np.int32, np.int64, np.uint64, np.float32, np.float64]
FILES = ["policy.safetensors", "rollout.safetensors", "meta.json", "manifest.json"]


def write(directory, iteration, **options):
    arrays = {
        "policy": {"core/weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "rollout": {"seed": np.array([2**64 - 1], dtype=np.uint64), "": np.array(True)},
    }
    meta = {"iteration": iteration, "generator": np.random.default_rng(7).bit_generator.state}
    return checkpoint.save(directory, iteration=iteration, arrays=arrays, meta=meta, **options)


@pytest.fixture
def two(tmp_path):
    """A good checkpoint of iteration 1 and one of iteration 2 to be damaged."""
    return write(tmp_path, 1), write(tmp_path, 2)


def assert_refused(path, file, good):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert str(path / file) in message
    assert f"newest good: {good}" in message
    assert "\n" not in message


@settings(max_examples=60, deadline=None)
@given(
    leaves=st.dictionaries(
        st.text("abc/.", max_size=4),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        ),
        max_size=4,
    ),
    number=st.integers(),
)
def test_what_is_saved_is_loaded(tmp_path_factory, leaves, number):
    directory = tmp_path_factory.mktemp("checkpoints")
    path = checkpoint.save(directory, iteration=3, arrays={"stem": leaves}, meta={"number": number})
    arrays, meta = checkpoint.load(path)
    assert meta == {"number": number}
    assert arrays["stem"].keys() == leaves.keys()
    for name, leaf in leaves.items():
        loaded = arrays["stem"][name]
        assert (loaded.dtype, loaded.shape) == (leaf.dtype, leaf.shape)
        assert loaded.tobytes() == leaf.tobytes()
        assert loaded.flags.writeable


def test_strided_arrays_keep_their_order(tmp_path):
    leaf = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    arrays, _ = checkpoint.load(checkpoint.save(tmp_path, iteration=1, arrays={"a": {"x": leaf}}, meta={}))
    np.testing.assert_array_equal(arrays["a"]["x"], leaf)


def test_a_generator_goes_on_from_its_saved_state(tmp_path):
    generator = np.random.default_rng(11)
    meta = {"state": generator.bit_generator.state}
    _, loaded = checkpoint.load(checkpoint.save(tmp_path, iteration=1, arrays={}, meta=meta))
    again = np.random.default_rng()
    again.bit_generator.state = loaded["state"]
    assert again.integers(2**63, size=5).tolist() == generator.integers(2**63, size=5).tolist()


def test_only_the_newest_are_kept(tmp_path):
    for iteration in (1, 2, 9, 10, 11):
        write(tmp_path, iteration, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iteration-00000009", "iteration-00000010", "iteration-00000011"
    ]  # fmt: skip
    assert checkpoint.newest(tmp_path) == tmp_path / "iteration-00000011"


def test_newest_goes_by_number_even_past_eight_digits(tmp_path):
    write(tmp_path, 99_999_999)
    longer = write(tmp_path, 100_000_000)
    assert checkpoint.newest(tmp_path) == longer


def test_no_checkpoint_at_all(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "absent") is None
    with pytest.raises(CheckpointError, match=r"no checkpoint .*iteration-00000005"):
        checkpoint.load(tmp_path / "iteration-00000005")


def test_saving_an_iteration_again_replaces_it(tmp_path):
    write(tmp_path, 1)
    checkpoint.save(tmp_path, iteration=1, arrays={}, meta={"second": True})
    assert checkpoint.load(tmp_path / "iteration-00000001") == ({}, {"second": True})


def test_what_a_crash_left_half_written_is_not_a_checkpoint(tmp_path, monkeypatch):
    good = write(tmp_path, 1)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 2)
    assert checkpoint.newest(tmp_path) == good
    assert checkpoint.load(good)
    write(tmp_path, 3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("file", FILES)
def test_any_flipped_byte_is_found(two, file):
    good, bad = two
    sound = (bad / file).read_bytes()
    flipped = {"manifest.json": range(0, len(sound), 7)}.get(file, range(0, len(sound), 11))
    for position in [*flipped, len(sound) - 2]:
        content = bytearray(sound)
        content[position] ^= 0x41
        (bad / file).write_bytes(content)
        with pytest.raises(CheckpointError, match="newest good: "):
            checkpoint.load(bad)
    (bad / file).write_bytes(sound)
    checkpoint.load(bad)
    assert checkpoint.newest_good(bad.parent) == bad


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("left", [0, 10])
def test_a_truncated_file_is_named(two, file, left):
    good, bad = two
    os.truncate(bad / file, left)
    assert_refused(bad, file, good)
    assert checkpoint.newest(bad.parent) == bad
    assert checkpoint.newest_good(bad.parent) == good


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(two, file):
    good, bad = two
    (bad / file).unlink()
    assert_refused(bad, file, good)


def test_a_flipped_bit_names_the_file_and_the_cause(two):
    good, bad = two
    content = bytearray((bad / "policy.safetensors").read_bytes())
    content[-1] ^= 1
    (bad / "policy.safetensors").write_bytes(content)
    assert_refused(bad, "policy.safetensors", good)
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.load(bad)


def test_without_another_good_one_the_error_says_so(two):
    good, bad = two
    shutil.rmtree(good)
    (bad / "meta.json").unlink()
    with pytest.raises(CheckpointError, match="no good one beside it"):
        checkpoint.load(bad)


def test_another_format_is_refused(two, monkeypatch):
    good, _ = two
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="format 1; this version reads format 2"):
        checkpoint.load(good)


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", '{"files": 3}', '{"files": {}}', '{"files": {"meta.json": 1}}']
)
def test_a_manifest_that_is_none_is_refused(two, manifest):
    good, bad = two
    (bad / "manifest.json").write_text(manifest)
    assert_refused(bad, "manifest.json", good)


def test_a_manifest_cannot_name_files_elsewhere(two):
    good, bad = two
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest["files"]["../secret.safetensors"] = {"size": 0, "sha256": ""}
    (bad / "manifest.json").write_text(json.dumps(manifest))
    assert_refused(bad, "manifest.json", good)


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path, 1)
    seen = []
    rename = Path.rename

    def watched(self, target):
        seen.append((sorted(path.name for path in self.iterdir()), Path(target).exists()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    write(tmp_path, 2)
    assert seen == [(sorted(FILES), False)]
