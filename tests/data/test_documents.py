import pytest

from evenhand.data.documents import Cutting, documents, split_opening
from evenhand.data.load import load
from evenhand.errors import UserError


def test_separator_is_the_end_of_text_mark_where_there_is_one():
    assert documents("a\n\nb<|endoftext|>\nc\n<|endoftext|>", Cutting()) == ["a\n\nb", "c"]
    assert documents("a\nb\n \nc\n\n\n\nd", Cutting()) == ["a\nb", "c", "d"]
    assert documents("a\nb", Cutting(separator="\n")) == ["a", "b"]


@pytest.mark.parametrize(
    ("cutting", "expected"),
    [
        (Cutting(words=2), ("One day,", ' Tim ran. "Stop!" he said. End.')),
        (Cutting(sentences=1), ("One day, Tim ran.", ' "Stop!" he said. End.')),
        (Cutting(sentences=2), ('One day, Tim ran. "Stop!"', " he said. End.")),
        (Cutting(), ("", 'One day, Tim ran. "Stop!" he said. End.')),
        (Cutting(words=8), None),
        (Cutting(sentences=9), None),
    ],
)
def test_opening_and_continuation_make_the_document_again(cutting, expected):
    text = 'One day, Tim ran. "Stop!" he said. End.'
    assert split_opening(text, cutting) == expected
    assert expected is None or "".join(expected) == text


def test_documents_are_loaded_as_openings_and_stated(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("Once upon a time there was.\n\nShort.\n\nOne day a cat sat.\n")
    data = load({"path": str(path), "opening_words": 3})
    assert [(g.prompt.content, g.completions[0].content) for g in data.groups] == [
        ("Once upon a", " time there was."),
        ("One day a", " cat sat."),
    ]
    assert data.description == (
        "stories.txt: text documents, openings of 3 words, 2 documents, separated by 'blank line'; "
        "1 too short to continue were left out"
    )
    bare = load({"path": str(path), "opening_words": 3, "use": "prompts"})
    assert bare.kind == "prompts"
    assert all(g.completions == () for g in bare.groups)


def test_other_encodings_must_be_named(tmp_path):
    path = tmp_path / "reviews.pos"
    path.write_bytes("café one two\nthree four five\n".encode("latin-1"))
    source = {"path": str(path), "format": "documents", "separator": "\n"}
    with pytest.raises(UserError, match=r"reviews\.pos:1"):
        load(source)
    data = load({**source, "encoding": "latin-1"})
    assert [g.completions[0].content for g in data.groups] == ["café one two", "three four five"]


def test_blank_lines_of_windows_part_documents_and_a_byte_order_mark_is_none_of_the_text(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfOne a.\r\nOne b.\r\n\r\nTwo.\r\n")
    found = load({"path": str(tmp_path / "b.txt")}).groups
    assert [g.completions[0].content for g in found] == ["One a.\r\nOne b.", "Two."]
