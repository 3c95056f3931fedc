"""What a label file may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.dataset.label import LabelFacts, check_label, unknown_classes

fraction = st.floats(0, 1, allow_nan=False)


def findings_of(text, **options):
    return check_label("a.txt", text.encode(), **options)[1]


@given(
    st.lists(
        st.tuples(st.integers(0, 9), fraction, fraction, st.floats(0.01, 1), st.floats(0.01, 1)), unique=True
    )
)
def test_boxes_within_the_image_are_clean(boxes):
    text = "\n".join(" ".join(map(repr, box)) for box in boxes)
    facts, findings = check_label("a.txt", text.encode())
    assert findings == []
    assert facts.rows == len(boxes)
    assert facts.max_class == max((box[0] for box in boxes), default=-1)


@given(st.binary(max_size=300))
def test_no_bytes_whatever_make_the_parser_fail(data):
    facts, findings = check_label("a.txt", data)
    assert findings or facts.rows >= 0
    unknown_classes("a.txt", data, 3)


@given(st.text(alphabet="0123456789. -einfa_\n\t", max_size=80), st.sampled_from([None, (2, 3), (1, 2)]))
def test_a_clean_label_is_one_that_ultralytics_reads(text, shape):
    """The opposite of its rules, written down again: what we let pass, it must not drop."""
    facts, findings = check_label("a.txt", text.encode(), keypoint_shape=shape)
    if any(finding.severity == "error" for finding in findings):
        return
    rows = [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
    assert len(rows) == facts.rows
    assert len({len(row) for row in rows} & {5}) == 0 or all(len(row) == 5 for row in rows)
    for row in rows:
        assert row[0] >= 0
        assert row[0] % 1 == 0
        coordinates = row[1:5] if shape else row[1:]
        assert all(-0.01 <= value <= 1.01 for value in coordinates)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n", "malformed-label", 2),
        ("\n\n0 a 0.5 0.1 0.1", "malformed-label", 3),
        ("0 nan 0.5 0.1 0.1", "malformed-label", 1),
        ("0 inf 0.5 0.1 0.1", "malformed-label", 1),
        ("0.5 0.5 0.5 0.1 0.1", "malformed-label", 1),
        ("-1 0.5 0.5 0.1 0.1", "malformed-label", 1),
        ("0 0.5 0.5 0.1 1_0", "malformed-label", 1),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "malformed-label", 1),
        ("0 1.02 0.5 0.1 0.1", "out-of-range", 1),
        ("0 0.5 0.5 -0.005 0.1", "out-of-range", 1),
        ("0 0.5 0.5 0.1 0", "zero-area", 1),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "zero-area", 1),
        ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1", "duplicate-row", 2),
        ("0 0.5 0.5 0.1 0.1\n0 0 0 1 0 1 1", "mixed-rows", 2),
    ],
)
def test_a_fault_is_named_with_its_line(text, code, line):
    assert [(finding.code, finding.line) for finding in findings_of(text)] == [(code, line)]


def test_a_hundredth_outside_is_tolerated_as_ultralytics_does():
    assert findings_of("0 1.01 -0.01 0.1 0.1") == []


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    facts, findings = check_label("a.txt", "\ufeff0 0.5 0.5 0.1 0.1\r\n2 0.5 0.5 0.2 0.2\r\n".encode())
    assert (facts, findings) == (LabelFacts(2, 5, 5, 2, crlf=True), [])


def test_text_that_is_not_utf8_is_an_error_with_its_line():
    finding = check_label("a.txt", b"0 0.5 0.5 0.1 0.1\n0 \xff\xfe")[1][0]
    assert (finding.code, finding.line) == ("malformed-label", 2)


def test_pose_rows_follow_the_keypoint_shape():
    row = "0 0.5 0.5 0.2 0.2 0.1 0.1 2 0.2 0.2 0"
    assert findings_of(row, keypoint_shape=(2, 3)) == []
    assert [f.code for f in findings_of(row, keypoint_shape=(3, 3))] == ["malformed-label"]
    assert [f.code for f in findings_of(row[:-1] + "3", keypoint_shape=(2, 3))] == ["out-of-range"]


def test_unknown_classes_are_listed_by_line():
    findings = unknown_classes("a.txt", b"0 0 0 0 0\n3 0 0 0 0\n2 0 0 0 0\n", 3)
    assert [(finding.line, finding.code) for finding in findings] == [(2, "unknown-class")]
