"""Flags of every command that takes an encoder: what its file does not tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from stopgrad.cli.shared.settings import whole_number
from stopgrad.weights.options import LoadOptions, add_options, check_there, parse_options

GROUP = Group("Of the encoder, where its file does not tell", sort_key=10)


def _one_text(_type: Any, tokens: Sequence[Token]) -> str:
    """Three numbers as `0.5 0.5 0.5`, `0.5,0.5,0.5` or `0.5`."""
    return ",".join(token.value.strip(",") for token in tokens)


_TRIPLE = Parameter(consume_multiple=True, negative="", converter=_one_text, n_tokens=-1)


@Parameter(name="*", group=GROUP)
@dataclass(frozen=True)
class Loading:
    """Options of an encoder beside its path; each can be given after a question mark in the path as well."""

    backbone: str | None = None
    "timm's name of the network that another program's weights are of, with the tag of the weights or without."
    stem: str | None = None
    "Its stem: standard, or small or small_stride2 for ResNets."
    prefix: str | None = None
    "What the names of the network's weights begin with, where the file holds several."
    image_size: Annotated[int | None, Parameter(converter=whole_number)] = None
    "Side of the images in pixels. Without it: as the encoder was trained, or timm's config says."
    mean: Annotated[str | None, _TRIPLE] = None
    "Channel means of pixels in 0..1, as 0.5 0.5 0.5. Without it: as the encoder was trained, or timm's config says."
    std: Annotated[str | None, _TRIPLE] = None
    "Channel standard deviations."
    partial: Annotated[bool, Parameter(negative="")] = False
    "Take weights that fit the network in part; the rest keeps its random initialisation, and is named."

    def of(self, encoder: str) -> str:
        """The encoder's path with all its options; a path that does not exist is reported before torch is imported."""
        text = add_options(encoder, self._options())
        check_there(text)
        return text

    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name.replace('_', '-')}" for name in self._options().given()]

    def _options(self) -> LoadOptions:
        return parse_options({**vars(self), "partial": self.partial or None})


NOTHING = Loading()
