"""`noria prompts` against a real server: created, released, rolled back, shown."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import NoriaServer

from .conftest import Run


def test_a_prompt_is_written_released_and_taken_back(run: Run, server: NoriaServer, tmp_path: Path) -> None:
    def noria(*arguments: object) -> str:
        result = run("prompts", *arguments, "--home", server.home)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert "cli version 1, production. Variables: who." in noria(
        "create", "cli", "--task", "Greet {{who}}.", "--label", "production"
    )
    assert "version 1" in noria("create", "cli", "--task", "Greet {{who}}.")  # nothing differs
    template = tmp_path / "next.toml"
    template.write_text('task = "Greet {{who}} kindly."\n[[examples]]\ninput = "a"\noutput = "b"\n')
    assert "version 2" in noria("create", "cli", "--from", template, "--message", "user={{who}}?", "--note", "kinder")
    assert "+Greet {{who}} kindly." in noria("diff", "cli")
    assert noria("label", "cli", "production", "2") == "cli: production=2\n"
    assert noria("rollback", "cli") == "cli: production=1\n"
    shown = noria("show", "cli")
    assert "Greet {{who}}." in shown and "kinder" in shown
    rendered = json.loads(noria("render", "cli", "--version", "2", "--var", "who=Ada=1", "--json"))
    assert [message["content"] for message in rendered["messages"]] == ["Greet Ada=1 kindly.", "a", "b", "Ada=1?"]
    assert "cli" in noria("list")
    assert noria("label", "cli", "production", "--remove") == "cli: no labels\n"

    missing = run("prompts", "render", "cli", "--home", server.home)
    assert missing.exit_code == 2
    assert "'who' has no value" in missing.stderr
    template.write_text("task = ")
    broken = run("prompts", "create", "cli", "--from", template, "--home", server.home)
    assert broken.exit_code == 2
    assert "cannot be read" in broken.stderr
    assert "Deleted cli." in noria("delete", "cli", "--yes")
