"""`lowland demo` runs the configuration of the digits, with settings over it."""

from tests.cli.inside import lowland


def test_the_demo_takes_settings_too(tmp_path):
    code, stdout, stderr = lowland(
        "demo", f"out={tmp_path / 'demo'}", "methods=[sgd]", "train.epochs=2", "threads=1",
        pictures=True,
    )  # fmt: skip
    assert code == 0, stderr
    assert "Test data" in stdout
