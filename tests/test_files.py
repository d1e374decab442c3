"""Files that a kill cannot damage."""

import pytest

from lowland.errors import StoreError
from lowland.files import atomic_write, require_own, write_text


def test_a_failure_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    write_text(path, "new σ")
    assert path.read_text(encoding="utf-8") == "new σ"


def test_writing_in_place_loses_the_old_file(tmp_path) -> None:
    """The broken twin of the test above."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with open(path, "w") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "half"


def test_a_stray_temporary_file_is_ignored(tmp_path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / ".a.txt.tmp").write_text("from a killed process, and longer than the new one")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("names", "is_own"),
    [
        ([], True),
        (["mine.yaml", "other.txt"], True),
        (["leases"], True),
        ([".mine.yaml.tmp", ".leases.tmp"], True),  # of a process that was killed
        (["other.txt"], False),
        (["leases", "other.txt"], False),
        ([".other.txt.tmp"], False),
    ],
)
def test_a_folder_is_ones_own_by_its_marks(tmp_path, names, is_own) -> None:
    for name in names:
        (tmp_path / name).touch()

    def check(path):
        require_own(path, ["mine.yaml"], rest=["leases"], content="run", option="--out")

    if is_own:
        check(tmp_path)
    else:
        with pytest.raises(StoreError, match="is not empty, and no run; name another folder with"):
            check(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_file_is_no_folder(tmp_path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(StoreError, match=r"a.txt is a file; name a folder with out="):
        require_own(tmp_path / "a.txt", ["a.txt"], content="run", option="out=")
    require_own(tmp_path / "missing", ["a.txt"], content="run", option="out=")
    assert not (tmp_path / "missing").exists()
