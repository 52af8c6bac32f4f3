"""Commands against a scripted server: what they send, what they print, how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run, Scripted, stream_of

STATUS = {"chat_model": "small", "embedding_model": "e5"}


def test_an_error_of_the_api_is_its_message_and_no_traceback(run: Run, scripted: Scripted) -> None:
    scripted.on("GET", "/v1/vector_stores/x", {"error": {"message": "No vector store 'x'.", "code": "not_found"}}, 404)
    result = run("stores", "show", "x", "--url", scripted.url)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "noria: No vector store 'x'.\n")


def test_an_answer_that_is_not_json_is_shown_shortly(run: Run, scripted: Scripted) -> None:
    scripted.on("GET", "/v1/noria/keys", b"<h1>Bad gateway</h1>", 502)
    result = run("keys", "list", "--url", scripted.url)
    assert result.exit_code == 1
    assert "The server answered 502: <h1>Bad gateway</h1>" in result.stderr


@pytest.mark.parametrize(("status", "body", "why"), [(200, b"<html>Hello</html>", "not JSON"), (307, b"", "answers 307")])
def test_what_is_no_noria_is_called_so(run: Run, scripted: Scripted, status: int, body: bytes, why: str) -> None:
    scripted.on("GET", "/v1/noria/keys", body, status)
    result = run("keys", "list", "--url", scripted.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"This is not a Noria server: {scripted.url}" in result.stderr and why in result.stderr


def test_a_stream_that_is_a_web_page_is_not_an_empty_answer(run: Run, scripted: Scripted) -> None:
    scripted.on("POST", "/v1/chat/completions", {"no": "stream"})
    result = run("chat", "small", "-m", "Hi", "--url", scripted.url)
    assert result.exit_code == 1 and "This is not a Noria server" in result.stderr


def test_a_url_that_is_none_and_input_that_is_no_text_are_said_so(run: Run, scripted: Scripted, tmp_path: Path) -> None:
    result = run("keys", "list", "--url", "http://[::1")
    assert result.exit_code == 2 and "The server's URL is not one" in result.stderr
    result = run("chat", "small", "--url", scripted.url, input=b"caf\xe9")
    assert result.exit_code == 2 and "not UTF-8" in result.stderr
    result = run("eval", "create", "x", "--spec", tmp_path, "--url", scripted.url)
    assert "Traceback" not in result.output and not isinstance(result.exception, OSError)


def test_what_the_output_cannot_show_is_no_fault_of_the_input(scripted: Scripted) -> None:
    chunk = {"choices": [{"delta": {"content": "caf\u00e9 \u6c34"}, "finish_reason": "stop"}]}
    scripted.on("POST", "/v1/chat/completions", stream_of(chunk) + b"data: [DONE]\n\n")
    command = [sys.executable, "-m", "noria.cli", "chat", "small", "-m", "Hi", "--url", scripted.url]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"caf? ?"), done.stderr


def test_nothing_that_a_model_says_commands_the_terminal(scripted: Scripted) -> None:
    said = "a\x1b]0;title\x07b\u009b2Jc\td"
    chunk = {"choices": [{"delta": {"content": said}, "finish_reason": "stop"}]}
    scripted.on("POST", "/v1/chat/completions", stream_of(chunk) + b"data: [DONE]\n\n")
    command = [sys.executable, "-m", "noria.cli", "chat", "small", "-m", "Hi", "--url", scripted.url]
    master, terminal = os.openpty()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.PIPE, check=False)
    os.close(terminal)
    shown = os.read(master, 1000).decode()
    os.close(master)
    assert done.returncode == 0, done.stderr
    assert shown == "a\ufffd]0;title\ufffdb\ufffd2Jc\td\r\n"
    piped = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert piped.stdout.decode() == said + "\n"


def test_no_server_at_the_url(run: Run) -> None:
    result = run("models", "list", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "connection to the server failed" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage_and_wrong_settings_exit_with_2(run: Run, tmp_path: Path) -> None:
    assert run("stores", "list", "--nope").exit_code == 2
    (tmp_path / "noria.toml").write_text("prot = 1")
    result = run("config", "show", "--home", tmp_path)
    assert result.exit_code == 2
    assert "'prot' is not a setting" in result.stderr


def test_lists_follow_pages_and_print_json(run: Run, scripted: Scripted) -> None:
    counts = {"completed": 1, "total": 2}
    row = {"name": "手册", "id": "vs_1", "file_counts": counts, "usage_bytes": 5, "status": "completed", "created_at": 1}
    scripted.on("GET", "/v1/vector_stores", {"data": [row] * 3, "has_more": True, "last_id": "vs_1"})
    result = run("stores", "list", "--url", scripted.url, "--limit", 5, "--json")
    assert [each["name"] for each in json.loads(result.stdout)][:5] == ["手册"] * 5
    assert [path.partition("?")[2] for _, path, _ in scripted.asked] == ["limit=5", "limit=2&after=vs_1"]


def test_the_secret_of_a_key_is_all_that_stdout_gets(run: Run, scripted: Scripted) -> None:
    scripted.on("POST", "/v1/noria/keys", {"id": "key_1", "name": "ci", "secret": "sk-noria-x"})
    result = run("keys", "create", "ci", "--scope", "inference", "--url", scripted.url)
    assert result.stdout == "sk-noria-x\n"
    assert scripted.asked[0][2]["scopes"] == ["inference"]


def test_a_credential_is_read_from_standard_input(run: Run, scripted: Scripted) -> None:
    scripted.on("PUT", "/v1/noria/providers/openai/credential", {"hint": "…abcd"})
    result = run("config", "credential", "openai", "--url", scripted.url, input="sk-abcd\n")
    assert scripted.asked[0][2] == {"value": "sk-abcd"}
    assert "sk-abcd" not in result.output
    assert run("config", "credential", "openai", "--url", scripted.url, input="\n").exit_code == 2


def test_chat_sends_message_and_piped_input_and_streams(run: Run, scripted: Scripted) -> None:
    chunks = [{"choices": [{"delta": {"content": part}, "finish_reason": None}]} for part in ("你", "好")]
    scripted.on("GET", "/v1/noria/status", STATUS)
    scripted.on("POST", "/v1/chat/completions", stream_of(*chunks) + b"data: [DONE]\n\n")
    result = run("chat", "-m", "Translate:", "--system", "Be brief.", "--url", scripted.url, input="hello\n")
    assert result.stdout == "你好\n"
    assert scripted.asked[-1][2]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Translate:\n\nhello"},
    ]


def test_a_stream_that_fails_midway_says_why(run: Run, scripted: Scripted) -> None:
    chunk = {"choices": [{"delta": {"content": "Hel"}, "finish_reason": None}]}
    scripted.on("POST", "/v1/chat/completions", stream_of(chunk, {"error": {"message": "The engine died."}}))
    result = run("chat", "small", "-m", "Hi", "--url", scripted.url)
    assert (result.exit_code, result.stdout) == (1, "Hel\n")
    assert "The engine died." in result.stderr


def answer(text: str, mode: str, notes: list[dict[str, object]]) -> bytes:
    part = {"type": "output_text", "text": text, "annotations": notes}
    response = {
        "status": "completed", "noria": {"answer_mode": mode}, "output": [{"type": "message", "content": [part]}],
    }  # fmt: skip
    return stream_of({"type": "response.output_text.delta", "delta": text}, {"type": "response.completed", "response": response})


def test_ask_prints_the_answer_its_sources_and_the_trace(run: Run, scripted: Scripted) -> None:
    note = {"type": "file_citation", "index": 6, "filename": "手册.md", "noria": {"number": 1, "quote": "四十二", "page": 7}}
    scripted.on("GET", "/v1/noria/status", STATUS)
    scripted.on("POST", "/v1/responses", answer("It is.", "generate", [note]))
    result = run("ask", "What?", "-s", "h", "-f", "lang=zh", "-k", 3, "--url", scripted.url)
    assert result.stdout == "It is. [1]\n\n[1] 手册.md  page 7\n    “四十二”\n"
    assert result.stderr == f"Trace: {scripted.url}/v1/noria/traces/{'f' * 32}\n"
    tool = scripted.asked[-1][2]["tools"][0]
    assert (tool["max_num_results"], tool["filters"]["key"]) == (3, "lang")


@pytest.mark.parametrize(("mode", "said"), [("extract", "extractive"), ("absent", "no passage that was found")])
def test_ask_says_how_it_was_answered(run: Run, scripted: Scripted, mode: str, said: str) -> None:
    scripted.on("POST", "/v1/responses", answer("Text.", mode, []))
    assert said in run("ask", "What?", "-s", "h", "-m", "small", "--url", scripted.url).stdout


def test_deleting_asks_first_and_needs_yes_where_nobody_can_be_asked(run: Run, scripted: Scripted) -> None:
    scripted.on("GET", "/v1/vector_stores/x", {"id": "vs_1", "name": "x", "file_counts": {"total": 3}})
    scripted.on("DELETE", "/v1/vector_stores/vs_1", {"deleted": True})
    refused = run("stores", "delete", "x", "--url", scripted.url)
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr
    assert run("stores", "delete", "x", "--yes", "--url", scripted.url).stdout == "Deleted x.\n"
    refused = run("wheel", "delete", "x", "--url", scripted.url)
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr


def test_deleting_all_traces_says_how_many(run: Run, scripted: Scripted) -> None:
    result = run("traces", "delete", "--model", "x", "--url", scripted.url)
    assert result.exit_code == 2  # filters alone do not delete
    assert scripted.asked == []


def test_a_trace_is_found_by_the_beginning_of_its_id(run: Run, scripted: Scripted) -> None:
    scripted.on("GET", "/v1/noria/traces", {"data": [{"id": "ab" * 16}, {"id": "ac" * 16}], "has_more": False})
    result = run("traces", "show", "a", "--url", scripted.url)
    assert "2 of the newest" in result.stderr
    run("traces", "show", "ac", "--url", scripted.url)
    assert scripted.asked[-1][1] == f"/v1/noria/traces/{'ac' * 16}"


def test_backup_and_restore_go_round(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "noria.toml").write_text("port = 1234\n")
    assert run("backup", tmp_path / "b.tar.gz", "--home", home).exit_code == 0
    assert run("backup", tmp_path / "b.tar.gz", "--home", home).exit_code == 1  # never over another
    assert "noria.toml" in run("restore", tmp_path / "b.tar.gz", "--home", tmp_path / "new").stdout
    assert "1234" in run("config", "show", "--changed", "--home", tmp_path / "new").stdout


def test_restoring_says_that_a_backups_settings_run_commands(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "noria.toml").write_text('train_command = "sh -c evil"\nallow_engine_commands = true\nport = 1\n')
    assert run("backup", tmp_path / "b.tar.gz", "--home", home).exit_code == 0
    done = run("restore", tmp_path / "b.tar.gz", "--home", tmp_path / "new")
    assert done.exit_code == 0
    assert "train_command" in done.stderr
    assert "allow_engine_commands" in done.stderr
    assert "sh -c evil" in done.stderr


def test_help_and_version_import_no_library_but_typer() -> None:
    code = (
        "import sys; sys.argv = ['noria', '--help']\n"
        "from noria.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'httpx', 'rich', 'pydantic', 'asyncio', 'numpy', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "..." not in done.stdout.partition("Commands:")[2]  # no summary is cut
