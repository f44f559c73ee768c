"""A mistake in a project's types is reported on one line, with file and line number."""

from pathlib import Path

import pytest

from pilothouse.cli.script import main
from tests.projects import change

SECOND = 'SECOND: Kind[WebSite] = Kind(WebSite, "sites.example.com", "v1", {}, description="Another one.")\n'


FIELD = 'config_map: Annotated[str, field("The ConfigMap that holds the message.", title="ConfigMap")] = ""'


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "maxLength=1000",
            "maxLenght=1000",
            "TypeError: 'maxLenght' is not a keyword of a structural schema; did you mean maxLength?",
        ),
        ("maxLength=1000", 'maxLength="1000"', "TypeError: maxLength must be of type int, not '1000'"),
        (
            FIELD,
            'config_map = field("The ConfigMap that holds the message.", title="ConfigMap")',
            "the field config_map has no type. Write config_map: Annotated[str, field(...)]",
        ),
        (
            FIELD,
            'config_map: str = field("The ConfigMap that holds the message.")',
            "WebSiteStatus.config_map: field(...) is not a default. Write config_map: Annotated[str, "
            "field(...)]",
        ),
        (
            FIELD,
            'config_map: Annotated[bytes, field("The ConfigMap that holds the message.")] = b""',
            "WebSite.status.configMap: a structural schema cannot express BytesType",
        ),
        (
            FIELD,
            "config_map: Annotatd[str, 1]",
            "NameError: name 'Annotatd' is not defined",
        ),
        (
            FIELD,
            'child: Annotated["WebSiteStatus | None", field("Itself.")] = None',
            "WebSite.status.child: WebSiteStatus contains itself, which a structural schema cannot express; "
            "use dict[str, Any]",
        ),
        (
            "import msgspec",
            "import msgspek",
            "No module named 'msgspek'. Correct the name, or add the package",
        ),
        (
            FIELD,
            'config_map: Annotated["Nope", field("The ConfigMap that holds the message.")] = ""',
            "NameError: name 'Nope' is not defined",
        ),
        (FIELD, 'config_map: "list[Nope]" = []', "NameError: name 'Nope' is not defined"),
        (
            FIELD,
            'config_map: Annotated[int, field("The ConfigMap that holds the message.")] = "none"',
            "WebSite.status.configMap: the default does not match the type of the field: Expected `int`, got "
            "`str`",
        ),
        (
            FIELD,
            'config_map: Annotated[str | None, field("The ConfigMap.")] = 7',
            "WebSite.status.configMap: the default does not match the type of the field: Expected",
        ),
        (
            FIELD,
            'config_map: Annotated[tuple[str, ...], field("The ConfigMaps.")] = (1,)',
            "WebSite.status.configMap: the default does not match the type of the field: Expected `str`",
        ),
        (
            FIELD,
            'config_map: Annotated[str, field("The ConfigMap.", pattern="(")] = ""',
            "WebSite.status.configMap: the pattern '(' is not a valid regular expression: missing ), "
            "unterminated subpattern at position 0",
        ),
        (
            FIELD,
            'config_map: Annotated[str, field("The ConfigMap.", pattern="a(?=b)")] = ""',
            "WebSite.status.configMap: the API server does not support '(?=' in the pattern 'a(?=b)'; use "
            "RE2 syntax",
        ),
        ("import msgspec", "import msgspec as", "invalid syntax"),
        ("import msgspec", "raise SystemExit(3)", "the module exits when it is imported"),
        (
            FIELD,
            'config_map: Annotated[str, field] = ""',
            'WebSiteStatus.config_map: field has no parentheses. Write field("...")',
        ),
        (
            FIELD,
            'config_map: Annotated[str, field("One."), field("Two.")] = ""',
            "WebSiteStatus.config_map: the type has 2 descriptions, such as 'Two.'. Use one field(...)",
        ),
        (
            FIELD,
            'conditions: Annotated[str, field("Mine.")] = ""',
            "WebSiteStatus.conditions: the engine writes this field, with another type. Do not declare it: "
            "inherit it from Status",
        ),
        (
            FIELD,
            'observed_generation: Annotated[str, field("Mine.")] = ""',
            "WebSiteStatus.observed_generation: the engine writes this field, with another type.",
        ),
        (
            FIELD,
            'config_map: Annotated[int, field("A number.", minimum=5, default=1)] = 1',
            "WebSite.status.configMap: default=1 breaks minimum=5 of the same field",
        ),
        (
            FIELD,
            'config_map: Annotated[str, field("A colour.", enum=["a"], default="b")] = "b"',
            "WebSite.status.configMap: default='b' breaks enum=['a'] of the same field",
        ),
        (
            FIELD,
            'config_map: Annotated[tuple[str, ...], field("Texts.", map_keys=["name"])] = ()',
            "WebSite.status.configMap: map_keys has 'name', but the items of the list have no such field",
        ),
        (
            FIELD,
            'config_map: Annotated[str, field("Text.", list_type="set")] = ""',
            "WebSite.status.configMap: map_keys and list_type are for lists, but the field is of type string",
        ),
        (
            FIELD,
            'config_map: Annotated[__import__("typing").Literal["", "x"], field("An enum.")] = ""',
            "WebSite.status.configMap: a structural schema cannot express LiteralType; use str with "
            "field(..., enum=['', 'x'])",
        ),
        (
            FIELD,
            'config_map: Annotated[set[str], field("A set.")] = set()',
            "WebSite.status.configMap: a structural schema cannot express SetType; use tuple[..., ...] with",
        ),
        (
            '        Column("Message", ".spec.message"),',
            '        Column("Message", "spec.message"),',
            "TypeError: Column 'Message': path must begin with a dot, but is 'spec.message'. Write "
            ".spec.message",
        ),
        (
            '        Column("Message", ".spec.message"),',
            '        Column("Message", ".spec.mesage"),',
            "WebSite: there is no field 'mesage' for the path '.spec.mesage'",
        ),
        (
            '        Column("Message", ".spec.message"),',
            '        Column("Message", ".spec.message[0"),',
            "TypeError: Column 'Message': the brackets or quotes in path '.spec.message[0' are not balanced",
        ),
        (
            '        Column("Message", ".spec.message"),',
            '        Column("Message", ".spec.message", type="dat"),',
            "TypeError: Column 'Message': type must be integer or number or string or boolean or date, not",
        ),
        (
            'manages=(ManagedResource("ConfigMap", "v1"),)',
            'manages=("ConfigMap",)',
            "TypeError: Kind WebSite: ",
        ),
        ("    WebSite,\n", "    WebSite(),\n", "TypeError: Kind: the view must be the struct of its objects"),
        ('    version="v1",\n', '    version="v1", title=5,\n', "TypeError: Kind WebSite: title must be of "),
        ('    version="v1",\n', '    version="v1", scale=5,\n', "TypeError: Kind WebSite: scale is 5, which"),
        ('    version="v1",\n', '    version="v1", reasons=[1],\n', "TypeError: Kind WebSite: reasons must "),
        ('reason="FieldValueRequired"', 'reason="Foo"', "TypeError: Rule "),
        ('field_path=".message"', 'field_path="message"', "TypeError: Rule "),
        (
            '    version="v1",\n',
            '    version="v1",\n    rules=[Rule("self.spec.size > 1", "use more")],\n',
            "WebSite: the CEL rule 'self.spec.size > 1' reads a field 'size' that does not exist",
        ),
        ('group="sites.example.com"', 'group="sites.k8s.io"', "the group 'sites.k8s.io' is reserved for"),
        ("    columns=(", "    colums=(", "TypeError: Kind.__init__() got an unexpected keyword"),
    ],
)
def test_it_names_file_and_line(
    project: Path, old: str, new: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = change(project / "web_operator" / "types.py", old, new)
    assert main(["crd", str(project)]) == 1
    error = capsys.readouterr().err
    # Python reports a call in its first line.
    call = sentence.startswith(("TypeError: Kind", "TypeError: Rule", "WebSite: the CEL"))
    lines = range(line - 12, line + 12) if call else (line,)
    assert any(error.startswith(f"pilothouse: web/web_operator/types.py:{n}: {sentence}") for n in lines), (
        error
    )
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("class WebSite: ...\n", "the class WebSite is declared twice, first on line"),
        (
            "class Other(msgspec.Struct):\n    a: int = 1\n    a: str = ''\n",
            "Other: the field a is declared twice, first on line",
        ),
        (
            SECOND.format('"WebSite", "others"'),
            "two kinds of the group sites.example.com have the kind WebSite: this one, and the one at "
            "web/web_operator/types.py:",
        ),
        (
            SECOND.format('"Second", "websites"'),
            "two kinds of the group sites.example.com have the plural websites: this one, and the one at "
            "web/web_operator/types.py:",
        ),
        (SECOND.format('"second", "seconds"'), "the kind 'second' must be in CamelCase"),
        (SECOND.format('"Second", "Seconds"'), "the plural 'Seconds' must be in lower case"),
        (
            SECOND.format('"Second", "seconds"').replace('"v1"', '"1"'),
            "the version '1' of Second must be like v1",
        ),
        (
            SECOND.format('"Second", "seconds"').replace("sites.example.com", "sites"),
            "the group 'sites' must be a domain name, such as example.com",
        ),
    ],
)
def test_a_second_declaration_and_an_invalid_name_are_refused(
    project: Path, more: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    types = project / "web_operator" / "types.py"
    line = len(types.read_text().splitlines()) + 1
    with types.open("a") as file:
        file.write(more)
    assert main(["crd", str(project)]) == 1
    error = capsys.readouterr().err
    if "must be" in sentence or "two kinds" in sentence:
        assert error.startswith(f"pilothouse: web/web_operator/types.py:{line}: {sentence}")
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no 'project' in [project]"),
        ("[project]\nname = 'web'", "has no 'version' in [project]"),
        ("[project", "is not valid TOML"),
        ("[project]\nname = 'web'\nversion = '1'", "OLM requires a version such as 0.1.0, not '1'"),
        ("[project]\nname = 'other'\nversion = '0.1.0'", "has no folder other_operator"),
    ],
)
def test_a_wrong_pyproject_is_refused(
    project: Path, text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pyproject.toml").write_text(text)
    assert main(["crd", str(project)]) == 1
    assert sentence in capsys.readouterr().err


def test_a_folder_that_is_not_a_project_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["crd", f"{tmp_path}/"]) == 1
    assert f"{tmp_path} is not a project: cannot read" in capsys.readouterr().err


def test_several_kinds_are_written_and_listed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (project / "web_operator" / "types.py").open("a") as file:
        file.write(SECOND.format('"Second", "seconds"'))
    assert main(["crd", str(project)]) == 0
    assert capsys.readouterr().out.count("kind: CustomResourceDefinition\n") == 2
    assert main(["crd", "--write", str(project)]) == 0
    folder = project / "config" / "crd"
    assert "- sites.example.com_seconds.yaml\n" in (folder / "kustomization.yaml").read_text()
    assert "plural: seconds\n" in (folder / "sites.example.com_seconds.yaml").read_text()
    capsys.readouterr()
    assert main(["crd", "--write", str(project)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(b"x = '\0'\n", "the file has a NUL byte. Remove it."), (b"# caf\xe9\n", "the file is not UTF-8 text.")],
)
def test_a_file_that_is_not_text_is_named(
    project: Path, text: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    types = project / "web_operator" / "types.py"
    before = types.read_bytes()
    types.write_bytes(before + text)
    assert main(["crd", str(project)]) == 1
    line = before.count(b"\n") + 1
    assert capsys.readouterr().err.startswith(f"pilothouse: web/web_operator/types.py:{line}: {sentence}")


def test_a_required_field_of_a_status_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    types = project / "web_operator" / "types.py"
    line = change(types, FIELD, FIELD.removesuffix(' = ""'))
    change(types, "    WebSiteStatus()\n", '    WebSiteStatus(config_map="")\n')
    assert main(["crd", str(project)]) == 1
    assert capsys.readouterr().err.startswith(
        f"pilothouse: web/web_operator/types.py:{line}: WebSiteStatus.config_map: a new object has no status."
    )


@pytest.mark.parametrize("old", ["maxLength=1000", "has(self.message) && "])
def test_explain_names_a_mistake_in_the_types_like_crd(
    project: Path, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(project / "web_operator" / "types.py", old, "maxLenght=1000" if "=" in old else "has(self.message")
    assert main(["crd", str(project)]) == 1
    error = capsys.readouterr().err
    assert main(["explain", "website", "--project", str(project)]) == 1
    assert capsys.readouterr().err == error
    assert error.startswith("pilothouse: web/web_operator/types.py:")


def test_the_crd_of_an_earlier_group_is_removed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "config" / "crd"
    (folder / "own.yaml").write_text("# mine\n")
    change(project / "web_operator" / "types.py", 'group="sites.example.com"', 'group="pages.example.com"')
    assert main(["crd", "--write", str(project)]) == 0
    assert f"removed {folder / 'sites.example.com_websites.yaml'}" in capsys.readouterr().out
    assert sorted(each.name for each in folder.iterdir()) == [
        "kustomization.yaml",
        "own.yaml",
        "pages.example.com_websites.yaml",
    ]


def test_the_role_follows_a_kind_to_another_group(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    role = project / "config" / "rbac" / "role.yaml"
    # Rules that are not about the kind stay.
    foreign = "- apiGroups: [sites.example.com]\n  resources: [others]\n  verbs: [get]\n"
    mixed = "- apiGroups: [sites.example.com]\n  resources: [websites, others]\n  verbs: [get]\n"
    before = role.read_text() + foreign + mixed
    role.write_text(before)
    change(project / "web_operator" / "types.py", 'group="sites.example.com"', 'group="pages.example.com"')
    assert main(["crd", "--write", str(project)]) == 0
    assert f"wrote {role}" in capsys.readouterr().out
    own = before.removesuffix(foreign + mixed).replace("sites.example.com", "pages.example.com")
    assert own.count("[pages.example.com]") == 3
    assert role.read_text() == own + foreign + mixed
    assert main(["crd", "--write", str(project)]) == 0
    assert "role.yaml" not in capsys.readouterr().out
