"""Decoded images on disk: read once, and anew where the source or the file is another."""

from pathlib import Path

import pytest
import torch

from lowland.zoo import cache

IMAGES, LABELS = torch.arange(24, dtype=torch.uint8).view(2, 2, 2, 3), torch.tensor([3, 1])


class Source:
    """Counts how often it is read."""

    reads = 0

    def __call__(self):
        self.reads += 1
        return IMAGES, LABELS


def test_the_default_cache(monkeypatch):
    monkeypatch.delenv("LOWLAND_CACHE")
    assert cache.folder() == Path.home() / ".cache" / "lowland"


def test_a_source_is_read_once_and_anew_where_it_is_made_of_something_else(tmp_path):
    read = Source()
    for made_of, reads in (("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)):
        images, labels = cache.cached(tmp_path / "x.parquet", made_of, read, cache=tmp_path / "c")
        assert read.reads == reads
        assert torch.equal(images, IMAGES)
        assert torch.equal(labels, LABELS)
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_files_of_one_name_in_two_folders_have_a_place_each(tmp_path):
    read = Source()
    for folder in ("a", "b"):
        cache.cached(tmp_path / folder / "train.parquet", "same", read, cache=tmp_path / "c")
    assert read.reads == 2
    assert len(list((tmp_path / "c").iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"hello" * 100])
def test_a_damaged_file_is_made_anew(tmp_path, content):
    read = Source()
    source = tmp_path / "x.parquet"
    cache.cached(source, "a", read, cache=tmp_path / "c")
    (file,) = (tmp_path / "c").iterdir()
    file.unlink()
    file.write_bytes(content)
    for _ in range(2):
        assert torch.equal(cache.cached(source, "a", read, cache=tmp_path / "c")[0], IMAGES)
    assert read.reads == 2


def test_checksums_are_of_content_and_listings_of_names_sizes_and_times(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("same")
    b.write_text("same")
    assert cache.checksum([a]) == cache.checksum([b])
    assert cache.listing([a]) != cache.listing([b])
    before = cache.listing([a], 8)
    assert before == cache.listing([a], 8) != cache.listing([a], 9)
    a.write_text("other")
    assert cache.checksum([a]) != cache.checksum([b])
    assert cache.listing([a], 8) != before
