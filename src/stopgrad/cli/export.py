"""stopgrad export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from stopgrad.cli.shared.console import plain_console, print_json
from stopgrad.cli.shared.encoder_flags import NOTHING, Loading
from stopgrad.exports.paths import check_place, default_place

if TYPE_CHECKING:
    from stopgrad.exports.formats import Exported


def export(
    encoder: str, /, *, to: str, out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None,
    with_preprocess: Annotated[bool, Parameter(negative="")] = False,
    license: str = "", trained_on: str = "",
    overwrite: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False,
    loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Write a backbone for timm, torchvision or ONNX, or as a folder to publish.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, an encoder.safetensors, another program's weights, or timm:NAME.
    to
        timm: weights for timm's own loader. torchvision: a state dict. onnx: a file for ONNX Runtime and others.
        hub-folder: weights, timm's config where timm can build the network, preprocessing and a model card.
        safetensors: our own format.
    out
        The file (.safetensors, .pth, .onnx) or folder to write. Without it: beside the encoder, named after it and the
        format; the output says where.
    with_preprocess
        onnx: take uint8 pixels and normalise them inside.
    license
        hub-folder: the licence of the weights, for the model card, such as apache-2.0.
    trained_on
        hub-folder: what the images are, where they are from and on what terms, for the model card.
    overwrite
        Replace an earlier export.
    json
        Print one JSON object.
    """
    encoder = loading.of(encoder)
    out = out or default_place(to, encoder)
    check_place(to, out, encoder, overwrite=overwrite)
    from stopgrad.exports.formats import export as write

    exported = write(
        encoder, to=to, out=out, with_preprocess=with_preprocess, overwrite=overwrite, license=license,
        trained_on=trained_on,
    )  # fmt: skip
    if json:
        print_json(exported.as_json())
    else:
        _print(exported)


def _print(exported: "Exported") -> None:
    console = plain_console()
    for name, text in (("Exported", exported.encoder), ("To", f"{exported.path} ({', '.join(exported.files)})")):
        console.print(f"{name:<10}{text}", markup=False)
    if exported.max_difference is not None:
        console.print(
            f"{'Checked':<10}loaded again; features differ by at most {exported.max_difference:.1g}, the largest being "
            f"{exported.feature_scale:.3g}",
            markup=False,
        )
    console.print(f"{'Input':<10}{exported.preprocess}", markup=False)
    for note in exported.notes:
        console.print(f"{'Note':<10}{note}", markup=False)
    console.print(f"{exported.seconds:.1f} s. To load it:\n", markup=False)
    console.print(exported.load.rstrip(), markup=False)
