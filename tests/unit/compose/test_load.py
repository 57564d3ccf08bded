"""Reading compose files from a directory."""

import os

import pytest

from sealane.compose.load import load, read_text
from sealane.compose.problems import ComposeError

SERVICE = "services: {s: {command: [c, $A], env_file: s.env}}\n"


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "My_App.1"
    directory.mkdir()
    (directory / "compose.yaml").write_text(SERVICE)
    (directory / ".env").write_text("A=dotenv\nB=$A\n")
    (directory / "s.env").write_text("C=$B\n")
    return directory


def failure(path, **arguments) -> str:
    with pytest.raises(ComposeError) as caught:
        load(str(path), environ={}, **arguments)
    return str(caught.value)


def test_a_directory_is_loaded_with_its_env_files(project):
    loaded = load(str(project), environ={})
    assert loaded.name == "my_app1"
    assert loaded.services[0].command == ("c", "dotenv")
    assert loaded.services[0].environment == (("C", "dotenv"),)
    assert loaded.warnings == ()


def test_the_environment_wins_over_dotenv(project):
    assert load(str(project), environ={"A": "shell"}).services[0].environment == (("C", "shell"),)


def test_the_process_environment_is_the_default(project, monkeypatch):
    monkeypatch.setenv("A", "process")
    assert load(str(project)).services[0].command == ("c", "process")


def test_a_file_is_loaded_by_name_and_relative_to_the_working_directory(project, monkeypatch):
    monkeypatch.chdir(project.parent)
    assert load("My_App.1/compose.yaml", environ={}).services[0].command == ("c", "dotenv")


def test_file_names_are_tried_in_order(project):
    (project / "docker-compose.yml").write_text("name: other\nnetworks: {n: }\n")
    assert load(str(project), environ={}).name == "my_app1"
    (project / "compose.yaml").unlink()
    assert load(str(project), environ={}).name == "other"


def test_the_name_comes_from_the_argument_the_environment_the_file_or_the_directory(project):
    (project / "compose.yaml").write_text("name: own\n" + SERVICE)
    assert load(str(project), environ={}).name == "own"
    assert load(str(project), environ={"COMPOSE_PROJECT_NAME": "outer"}).name == "outer"
    assert load(str(project), environ={"COMPOSE_PROJECT_NAME": "outer"}, name="arg").name == "arg"
    assert "'A B' is not a project name" in failure(project, name="A B")


def test_a_directory_without_usable_letters_gives_a_name_too(tmp_path):
    directory = tmp_path / "Äß_"
    directory.mkdir()
    (directory / "compose.yml").write_text("networks: {n: }")
    assert load(str(directory), environ={}).name == "default"


def test_an_override_file_is_named_as_not_read(project):
    (project / "compose.override.yaml").write_text("services: {}")
    assert load(str(project), environ={}).warnings == (
        "'compose.override.yaml' is not read: one file is the whole project",
    )


def test_an_unset_variable_in_dotenv_is_a_warning(project):
    (project / ".env").write_text("A=x$NO\n")
    (project / "s.env").write_text("")
    assert load(str(project), environ={}).warnings == (
        ".env: variable 'NO' is not set; it is replaced by nothing",
    )


def test_errors_name_the_file(project, tmp_path):
    (project / ".env").write_text("A=1\n?\n")
    assert failure(project) == (
        f"{project}/.env: 1 problem\n  line 2: '?' is not NAME=value; write NAME=value, or # before a comment"
    )
    (project / ".env").unlink()
    (project / "compose.yaml").write_text("services: []")
    assert failure(project).startswith(f"{project}/compose.yaml: 1 problem\n  line 1: services: ")
    assert failure(tmp_path) == (
        f"{tmp_path}: 1 problem\n  no compose file in this directory; "
        "create one of compose.yaml, compose.yml, docker-compose.yaml, docker-compose.yml"
    )
    assert "cannot be read: No such file or directory" in failure(tmp_path / "none.yaml")


def test_what_is_no_regular_text_file_is_refused_without_waiting(project):
    file = project / "compose.yaml"
    file.write_bytes(b"\xff\xfe")
    assert "is no text: " in failure(project)
    file.write_bytes(b"#" * ((1 << 20) + 1))
    assert "is no text: longer than 1048576 bytes" in failure(project)
    file.unlink()
    os.mkfifo(file)
    assert "cannot be read: not a regular file" in failure(project)
    with pytest.raises(OSError, match="not a regular file"):
        read_text("/dev/zero")


def test_a_missing_env_file_is_a_problem_of_its_service(project):
    (project / "s.env").unlink()
    assert f"services.s.env_file: there is no file '{project}/s.env'; create it" in failure(project)
