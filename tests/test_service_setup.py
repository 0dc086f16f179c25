"""`dopaint setup pipeline`: writes a pipeline for another pixel size, or says in one line why not."""

from pathlib import Path

from typer.testing import CliRunner

from service.cli import app


def test_pipeline_for_another_pixel_size(tmp_path: Path) -> None:
    out = tmp_path / "fine.cppipe"
    done = CliRunner().invoke(app, ["setup", "pipeline", str(out), "--pixel-um", "0.299"])
    assert done.exit_code == 0, done.output
    assert "Texture scale to measure:20" in out.read_text()
    refused = CliRunner().invoke(app, ["setup", "pipeline", str(out), "--pixel-um", "9"])
    assert refused.exit_code == 2
    assert "remove one of them from the pipeline" in " ".join(refused.output.split())
