"""Finding the configuration file, and finding lines in it."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.orchestrator.settings.file import ConfigurationFileError, find_file, read_file
from gpu_offload.orchestrator.settings.scaffold import toml_key, toml_value
from gpu_offload.orchestrator.settings.toml_lines import key_lines

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
KEY = st.one_of(st.sampled_from(["a", "b-c", "1", "true"]), TEXT)
SCALAR = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEY, inner, max_size=3)),
    max_leaves=8,
)


def walk(value, path=()):
    """Every way to a value in a parsed document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from walk(inner, (*path, key))


@given(st.dictionaries(KEY, VALUE, max_size=4), st.dictionaries(KEY, VALUE, max_size=4))
def test_every_key_of_any_document_has_a_line(top, table):
    text = "".join(f"{toml_key(key)} = {toml_value(value)} # x = [\n" for key, value in top.items())
    text += '["a table \\"]".\'b\']\n' + "".join(
        f"\n{toml_key(key)}={toml_value(value)}\n" for key, value in table.items()
    )
    if 'a table "]' in top:
        return
    data = tomllib.loads(text)
    lines = key_lines(text)
    assert set(lines) == set(walk(data))
    assert [lines[(key,)] for key in top] == list(range(1, len(top) + 1))


DOCUMENT = '''\
# x = 1
a.b."c d" = """
text = 1 \\""" [x]
"""   # three lines
list = [  # open
    "one", 'two', # [
    { k = 1, l.m = [ 2,
      3 ] },
    """x""""",
]
date = 1979-05-27 07:32:00
[t . 'u']
x = -inf
[[many]]
n = 1
[[many]]
n = 2
[many.deeper]
o = {}
[[many.inner]]
p = \'\'\'it's
\'\'\'
q = true
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("a", "b", "c d"), 2),
        (("list",), 5),
        (("list", 0), 6),
        (("list", 1), 6),
        (("list", 2), 7),
        (("list", 2, "l", "m"), 7),
        (("list", 2, "l", "m", 1), 8),
        (("list", 3), 9),
        (("date",), 11),
        (("t", "u"), 12),
        (("t", "u", "x"), 13),
        (("many", 0, "n"), 15),
        (("many", 1), 16),
        (("many", 1, "n"), 17),
        (("many", 1, "deeper", "o"), 19),
        (("many", 1, "inner", 0, "p"), 21),
        (("many", 1, "inner", 0, "q"), 23),
    ],
)
def test_the_line_of_a_key_is_right_in_every_notation(path, line):
    assert key_lines(DOCUMENT)[path] == line
    assert set(key_lines(DOCUMENT)) == set(walk(tomllib.loads(DOCUMENT)))


def test_the_nearest_file_up_to_the_root_of_the_repository_is_found(tmp_path):
    (tmp_path / "offload.toml").touch()
    repository = tmp_path / "repository"
    inner = repository / "a" / "b"
    inner.mkdir(parents=True)
    (repository / ".git").mkdir()
    assert find_file(inner) is None, "a stranger's file above the repository does not count"
    (repository / "pyproject.toml").write_text("[tool.other]\n")
    assert find_file(inner) is None
    (repository / "pyproject.toml").write_text("[tool.offload.dataset]\npath = 'x'\n")
    assert find_file(inner) == repository / "pyproject.toml"
    (repository / "a" / "offload.toml").touch()
    assert find_file(inner) == repository / "a" / "offload.toml"


def test_outside_of_a_repository_only_the_folder_itself_is_looked_into(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "offload.toml").touch()
    assert find_file(inner) is None
    assert find_file(tmp_path) == tmp_path / "offload.toml"


def test_two_configurations_in_one_folder_are_refused_and_it_says_which_to_keep(tmp_path):
    (tmp_path / "offload.toml").touch()
    (tmp_path / "pyproject.toml").write_text("[tool.offload]\n")
    with pytest.raises(ConfigurationFileError, match=r"keep offload\.toml and remove the table"):
        find_file(tmp_path)


def test_a_broken_pyproject_matters_only_where_it_holds_our_table(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = = 1\n")
    assert find_file(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[ tool . offload.dataset]\nx = = 1\n")
    with pytest.raises(ConfigurationFileError, match=r"pyproject\.toml:2: it is not TOML"):
        read_file(find_file(tmp_path), "pyproject.toml")


def test_a_pyproject_that_is_too_large_is_passed_over_only_where_it_does_not_hold_our_table(tmp_path):
    large = "# " + "x" * (1 << 20) + "\n[tool.other]\n"
    (tmp_path / "pyproject.toml").write_text(large)
    assert find_file(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text(large + "[tool.offload.dataset]\n")
    with pytest.raises(ConfigurationFileError, match="larger than 1 MiB"):
        read_file(find_file(tmp_path), "pyproject.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = x\n", r"f\.toml:2: it is not TOML: Invalid value"),
        (b"a = 1\r\nb = 2\r\na = 3\r\n", r"f\.toml:3: it is not TOML: Cannot overwrite"),
        (b"a = 1\nb = [\n\n", r"f\.toml:2: it is not TOML"),
        (b"a = 1\nb = '\xff'\n", r"f\.toml:2: it is not UTF-8"),
    ],
)
def test_what_is_not_toml_is_reported_with_its_line(tmp_path, content, message):
    (tmp_path / "f.toml").write_bytes(content)
    with pytest.raises(ConfigurationFileError, match=message):
        read_file(tmp_path / "f.toml", "f.toml")


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    (tmp_path / "f.toml").write_bytes(b"\xef\xbb\xbf[dataset]\r\npath = 'x'\r\n")
    file = read_file(tmp_path / "f.toml", "f.toml")
    assert file.data == {"dataset": {"path": "x"}}
    assert file.where(("dataset", "path")) == "f.toml:2"
    assert file.where(("dataset", "missing")) == "f.toml:1"


def test_a_missing_file_and_a_pyproject_without_us_say_what_to_do(tmp_path):
    with pytest.raises(ConfigurationFileError, match="offload init"):
        read_file(tmp_path / "f.toml", "f.toml")
    (tmp_path / "pyproject.toml").write_text("[tool]\n")
    with pytest.raises(ConfigurationFileError, match=r"no \[tool\.offload\]"):
        read_file(tmp_path / "pyproject.toml", "pyproject.toml")
    (tmp_path / "pyproject.toml").write_text("[tool]\noffload = 3\n")
    with pytest.raises(ConfigurationFileError, match=r"pyproject\.toml:2: tool\.offload is not a table"):
        read_file(tmp_path / "pyproject.toml", "pyproject.toml")
