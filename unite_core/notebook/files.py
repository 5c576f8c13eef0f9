"""Notebook files: their parameters, their code, and the form in which they are stored."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..files import replacing

__all__ = [
    "NotebookError", "ParameterError", "check_parameters", "clean_notebook", "cleaned", "code_of",
    "literal", "parameter_names", "parse_parameters", "read_parameters", "write_text",
]  # fmt: skip


OUTPUT = "output"  # the parameter that carries the run's folder
_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "dict": dict}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_VISIBLE, _VISIBLE_SHARE = 16, 0.002  # of 255 levels, and of a picture's points
_WIDGET = "application/vnd.jupyter.widget-view+json"


class ParameterError(ValueError):
    """A notebook got a parameter that it does not have, or one of the wrong type."""


class NotebookError(RuntimeError):
    """A notebook is missing, stopped with an error, or ended without saving results."""


def read_parameters(path: str | Path) -> dict[str, dict]:
    """{name: {inferred_type_name, default, help}} of the cell tagged `parameters`."""
    import papermill

    if not Path(path).is_file():
        raise NotebookError(f"{path}: no such notebook")
    known = papermill.inspect_notebook(literal(path))
    if OUTPUT not in known:
        raise ParameterError(f'{path}: its parameters cell needs the line {OUTPUT}: str = ""')
    return known


def parameter_names(path: str | Path) -> list[str]:
    """Names that the cell tagged `parameters` assigns, in order."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    lines = [line for cell in tagged for line in ast.parse("".join(cell["source"])).body]
    return [
        (line.target if isinstance(line, ast.AnnAssign) else line.targets[0]).id
        for line in lines
        if isinstance(line, ast.AnnAssign | ast.Assign)
    ]


def check_parameters(path: str | Path, given: Mapping) -> dict:
    """Check `given` parameters and complete them with the notebook's defaults.

    An int is accepted for a float, a bool never for a number; `output` cannot be given, it is the
    run's folder. Raises ParameterError, which lists the notebook's parameters.
    """
    known = read_parameters(path)
    for name, value in given.items():
        if name == OUTPUT or name not in known:
            reason = "is the run's folder" if name == OUTPUT else "does not exist"
            raise ParameterError(f"{path}: parameter {name} {reason}; it takes\n{_listed(known)}")
        if not _fits(value, _type_name(known[name])):
            raise ParameterError(
                f"{path}: parameter {name} = {value!r} is not "
                f"{_type_name(known[name])}; it takes\n{_listed(known)}"
            )
    defaults = {name: ast.literal_eval(p["default"]) for name, p in known.items()}
    return {name: given.get(name, value) for name, value in defaults.items() if name != OUTPUT}


def parse_parameters(path: str | Path, words: Mapping[str, str]) -> dict:
    """Values from a command line: str parameters stay text, others are read as python literals."""
    known = read_parameters(path)
    return {
        name: word if name not in known or _type_name(known[name]) == "str" else _value_of(word)
        for name, word in words.items()
    }


def clean_notebook(path: str | Path) -> None:
    """Clean an executed notebook's file for storing, see `cleaned`."""
    import nbformat

    write_text(path, nbformat.writes(cleaned(nbformat.read(path, as_version=4))))


def cleaned(notebook):
    """Clean an executed notebook for storing: no times, addresses, stderr or widget state.

    Drops injected parameters and all metadata but tags, the kernel's name and the words of
    pictures, makes pictures small and numbers the code cells from 1. Changes the notebook and
    returns it; cleaning twice changes nothing.
    """
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    count = 0
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata.tags} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [_cleaned(o, count) for o in cell.outputs if _is_stored(o)]
    return notebook


def code_of(path: str | Path) -> list[str]:
    """Sources of the code cells."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def literal(path: str | Path) -> str:
    """A path for papermill, which would otherwise substitute {names} in it."""
    return str(path).replace("{", "{{").replace("}", "}}")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file with one newline at its end, atomically."""
    with replacing(path) as partial:
        partial.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _listed(known: Mapping[str, Mapping]) -> str:
    return "\n".join(
        f"  {name}: {_type_name(p)} = {p['default']}  {p['help']}".rstrip()
        for name, p in known.items()
        if name != OUTPUT
    )


def _type_name(parameter: Mapping) -> str:
    name = parameter["inferred_type_name"]
    return name if name != "None" else type(ast.literal_eval(parameter["default"])).__name__


def _fits(value, type_name: str) -> bool:
    optional = re.fullmatch(r"(?:typing\.)?Optional\[(.+)\]", type_name)
    if optional:
        return value is None or _fits(value, optional[1])
    kind = _TYPES.get(type_name.split("[")[0].lower())
    if kind is None:
        raise ParameterError(f"type {type_name} of a parameter: use {', '.join(_TYPES)}")
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _value_of(word: str):
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def _is_stored(output) -> bool:
    return output.get("name") != "stderr" and _WIDGET not in output.get("data", {})


def _cleaned(output, count: int):
    if output.output_type == "stream":
        output.text = _ADDRESS.sub("", output.text)
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.metadata = {
            kind: {"alt": about["alt"]}
            for kind, about in output.metadata.items()
            if isinstance(about, dict) and "alt" in about
        }
        if "image/png" in output.data:
            output.data.pop("text/html", None)  # the same picture, see `show_figure`
        for kind, content in output.data.items():
            if kind == "image/png":
                output.data[kind] = _smaller(content)
            if kind.startswith("text/"):
                output.data[kind] = _ADDRESS.sub("", content)
    return output


def _smaller(png: str) -> str:
    """The PNG (base64), smaller: with 256 colours if these do for all of it, else with all.

    Lines, letters and maps of one scale have few colours; photographs and drawings keep theirs.
    """
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        if image.mode == "P":  # already reduced
            return png
        full = image.convert("RGB")
    few = full.quantize(256, dither=Image.Dither.NONE)
    far = np.abs(np.int16(few.convert("RGB")) - np.int16(full)).max(axis=2)
    packed = io.BytesIO()
    (few if (far > _VISIBLE).mean() < _VISIBLE_SHARE else full).save(packed, "PNG", optimize=True)
    return min(png, base64.b64encode(packed.getvalue()).decode(), key=len)
