"""Encoders by name."""

from typing import Any

from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.plugins import find_plugin

GROUP = "vpxrc.encoders"


def vp9(argument: str = "", **fields: Any) -> EncoderOptions:
    """Return libvpx's options.

    Args:
        argument: Refused.
        **fields: Fields of :class:`vpxrc.EncoderOptions`.

    Raises:
        InputError: There is an argument, or a field is out of range.
    """
    if argument:
        raise InputError(f"the encoder vp9 takes no argument, such as {argument!r}")
    return EncoderOptions(**fields)


def make_options(encoder: str = "vp9", **fields: Any) -> EncoderOptions:
    """Return the options of an encoder from its name, or ``NAME:ARGUMENT`` for one that takes it.

    Names come from the entry points ``vpxrc.encoders`` of all installed packages. Each names a
    callable that takes the argument, if any, as a string, and fields of its options by name.

    Args:
        encoder: The spec: ``vp9``, or ``learned:CODEC`` with a codec of the zoo or a checkpoint.
        **fields: Fields of :class:`vpxrc.EncoderOptions`.

    Raises:
        InputError: There is no such encoder, or it refuses the argument or a field.
        MissingDependencyError: The encoder needs a package that is not installed.
    """
    name, _, argument = encoder.partition(":")
    factory = find_plugin(GROUP, name, "encoder").load()
    try:
        options = factory(argument, **fields) if argument else factory(**fields)
    except TypeError as error:
        raise InputError(f"encoder {encoder!r}: {error}") from error
    if not isinstance(options, EncoderOptions):
        raise InputError(f"encoder {name!r} has no vpxrc.EncoderOptions")
    return options
