"""What benchmarks/notebooks.py stores of what cells put out."""

from nbformat.v4 import new_output

from benchmarks.notebooks import printed


def test_lines_that_overwrite_each_other_are_not_stored():
    said = [
        "first\r\n",
        "\r",
        "folder:   0%|    | 0/7\rfolder:   0%|    | 0/7",
        "\rfolder: 100%|####| 7/7\r\n",
        "built\r\n",
    ]
    outputs = [new_output("stream", name="stdout", text=text) for text in said]
    outputs.insert(2, new_output("stream", name="stderr", text="50%"))
    picture = new_output("display_data", data={"image/png": ""})
    last = new_output("stream", name="stdout", text="\rdone\r\n")
    assert [output.get("text") for output in printed([*outputs, picture, last])] == ["first\nbuilt\n", None]
