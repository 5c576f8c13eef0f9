"""Tables: aligned columns as text, cells that survive Markdown."""

from unite_core.tables import cell_text, markdown_table, text_table


def test_columns_are_aligned_to_their_widest_cell():
    head, rule, *body = text_table([["a", 1, "xyz"], ["long", 22, "z"]], ["", "n", "v"], 1).split(
        "\n"
    )
    assert body == ["a      1  xyz", "long  22    z"]
    assert head == "       n    v" and rule == "-" * 13


def test_without_a_head_all_columns_are_left_and_nothing_trails():
    assert text_table([("task", "n"), ("x", "10"), ("y", "")]) == "task  n\nx     10\ny"


def test_a_bar_in_a_cell_does_not_end_it():
    lines = markdown_table([["<|IMAGE|>", 3]], ["text", "n"], left=1).split("\n")
    assert lines == ["| text | n |", "| --- | ---: |", r"| <\|IMAGE\|> | 3 |"]


def test_cells_say_yes_and_no_and_round_floats():
    assert [cell_text(value) for value in (True, False, 0.12345, 7, None)] == [
        "yes", "no", "0.123", "7", "None",
    ]  # fmt: skip
