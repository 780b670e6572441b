"""Latents: their bits in training, and their way into streams and back.

A module for training has only ``forward``. Its method ``coder`` returns what codes with the weights
that it has then: exact copies of the networks, and tables of frequencies. So no module is ever half
ready to code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vpxrc.codecs.channel_mask import ChannelMask
from vpxrc.codecs.coder import Decoder, Encoder, Tables, by_channel, information
from vpxrc.codecs.contexts import Cells, Context, all_cells, padded
from vpxrc.codecs.entropy import FactorizedPrior, Family, bits
from vpxrc.codecs.exact import ExactPointwise, exact, exact_pointwise, snap
from vpxrc.codecs.layers import conv, leaky
from vpxrc.codecs.quantizers import Distortion, add_noise, straight_through
from vpxrc.errors import InputError

MOVES = 0, -1, 1  # of a value in rate-distortion optimised quantisation
_CELLS = 1 << 12  # cells whose distributions are predicted at once

Bits = dict[str, Tensor]  # by stream, [B] each
Latent = TypeVar("Latent")


class LatentCoder(Protocol[Latent]):
    """Codes the latents of one picture."""

    def encode(self, y: Latent) -> tuple[list[bytes], Latent]:
        """Return the streams, and the latents as :meth:`decode` returns them."""

    def decode(self, streams: Sequence[bytes], height: int, width: int) -> Latent:
        """Return the latents.

        Args:
            streams: Those of :meth:`encode`.
            height: Rows of the latent.
            width: Columns of the latent.

        Raises:
            InputError: A stream is damaged.
        """


class LatentModel(nn.Module, ABC, Generic[Latent]):
    """Latents and their probabilities."""

    @abstractmethod
    def coder(self) -> LatentCoder[Latent]:
        """Return a coder with the weights as they are now."""


def check_streams(streams: Sequence[bytes], count: int) -> None:
    """Check the number of streams.

    Raises:
        InputError: It is another one.
    """
    if len(streams) != count:
        raise InputError(f"the file has {len(streams)} streams, and its codec {count}")


# A latent whose distribution is the same for every picture


class FactorizedLatent(LatentModel[Tensor]):
    """A latent ``[B, C, h, w]`` with one distribution for each channel.

    Args:
        channels: C.
        name: Name of the stream.
    """

    def __init__(self, channels: int, name: str = "y") -> None:
        super().__init__()
        self.prior = FactorizedPrior(channels)
        self.name = name

    def forward(self, y: Tensor) -> tuple[Tensor, Bits]:
        """Return the rounded latent, and the bits of the noisy one."""
        return straight_through(y), {self.name: bits(self.prior.likelihood(add_noise(y)))}

    def coder(self) -> "FactorizedCoder":
        """Return a coder with the weights as they are now."""
        return FactorizedCoder(self.prior)


class FactorizedCoder:
    """The coder of a :class:`FactorizedLatent`."""

    def __init__(self, prior: FactorizedPrior) -> None:
        self._tables = prior.tables()

    def encode(self, y: Tensor) -> tuple[list[bytes], Tensor]:
        """Return one stream, and the rounded latent ``[1, C, h, w]``, float64."""
        rounded = y.double().round()
        encoder = Encoder()
        encoder.add(rounded.flatten().long(), by_channel(self._tables, y[0, 0].numel()))
        return [encoder.finish()], rounded

    def decode(self, streams: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return the rounded latent ``[1, C, h, w]``, float64."""
        check_streams(streams, 1)
        decoder = Decoder(streams[0])
        channels = len(self._tables)
        values = decoder.take(channels * height * width, by_channel(self._tables, height * width))
        decoder.finish()
        return values.double().view(1, channels, height, width)


# A latent whose distribution is predicted


def pointwise(inputs: int, hidden: Sequence[int], outputs: int, bias: bool = True) -> nn.Sequential:
    """Return 1x1 convolutions with LeakyReLU between them; the last one may have no bias."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [conv(inputs, width, 1, 1), leaky()]
        inputs = width
    return nn.Sequential(*layers, nn.Conv2d(inputs, outputs, 1, bias=bias))


class Prediction(NamedTuple):
    """How the distributions of some cells are predicted.

    Attributes:
        family: The family of distributions.
        network: From features to ``P M`` channels of parameters; it looks at one cell at a time.
    """

    family: Family
    network: nn.Module


class ConditionalLatent(nn.Module):
    """A latent whose distributions are predicted from side information, and from its own cells.

    Args:
        family: The family of distributions.
        context: Which cells the prediction sees; None for none.
        network: From the features of the context (if there is one) and the side information to
            ``P M`` channels of parameters; it may look at one cell at a time only.
        first: The prediction of the cells of the context's first pass, which sees the side
            information alone; None where ``network`` sees zeros for the context there.
        skip_zeros: Whether channels that are zero in a whole picture are flagged and not coded. The
            families have to round to whole numbers, as :class:`~vpxrc.codecs.entropy.Mixture`.
    """

    def __init__(
        self,
        family: Family,
        context: Context | None,
        network: nn.Module,
        *,
        first: Prediction | None = None,
        skip_zeros: bool = False,
    ) -> None:
        super().__init__()
        self.family, self.context, self.network = family, context, network
        self.first_family = family if first is None else first.family
        self.first_network = None if first is None else first.network
        self.skip_zeros = skip_zeros

    def forward(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rounded latent, and the bits ``[B]`` of the noisy one.

        Args:
            y: ``[B, M, h, w]``.
            side: ``[B, S, h, w]``.
        """
        noisy = add_noise(y)
        features = [side] if self.context is None else [self.context(noisy), side]
        parameters = self.network(torch.cat(features, 1))
        likelihood = self.family.likelihood(noisy, parameters)
        y_hat = self.family.rounded(y, parameters)
        if self.first_network is not None and self.context is not None:
            parameters = self.first_network(side)
            rows, columns = self.context.passes(*y.shape[-2:])[0]
            blind = torch.zeros(y.shape[-2:], dtype=torch.bool, device=y.device)
            blind[rows, columns] = True
            first = self.first_family.likelihood(noisy, parameters)
            likelihood = torch.where(blind, first, likelihood)
            y_hat = torch.where(blind, self.first_family.rounded(y, parameters), y_hat)
        return y_hat, bits(likelihood)

    def coder(self) -> "ConditionalCoder":
        """Return a coder with the weights as they are now."""
        return ConditionalCoder(self)


class ConditionalCoder:
    """The coder of a :class:`ConditionalLatent`.

    Where channels can be skipped, the stream begins with a bit for each channel.
    """

    def __init__(self, latent: ConditionalLatent) -> None:
        self._context = latent.context
        self._read = None if latent.context is None else exact(latent.context).reader()
        self._rest = latent.family, exact_pointwise(latent.network)
        first = latent.first_network
        self._first = None if first is None else (latent.first_family, exact_pointwise(first))
        self._skip_zeros = latent.skip_zeros

    def encode(
        self, y: Tensor, side: Tensor, distortion: Distortion | None = None
    ) -> tuple[bytes, Tensor]:
        """Return the stream, and the latent as :meth:`decode` returns it.

        Args:
            y: ``[M, h, w]``.
            side: ``[S, h, w]``, on the grid of :mod:`vpxrc.codecs.exact`.
            distortion: What other values cost. With it each value becomes the best of the nearest
                whole number and its neighbours, in bits and in distortion.
        """
        encoder = Encoder()
        values, mask = y.double(), ChannelMask.whole(len(y))
        if self._skip_zeros:
            values = values.round()
            mask = ChannelMask((values != 0).flatten(1).any(1))

        def visit(cells: Cells, offset: Tensor, tables: Tables) -> Tensor:
            coded = values[mask.kept[:, None], cells[0], cells[1]]
            symbols = (coded.flatten() - offset).round()
            if distortion is not None:
                costs = []
                for move in MOVES:
                    moved = (symbols + move + offset).view(coded.shape)
                    cost = distortion.cost(moved, mask.kept, *cells).flatten()
                    costs.append(cost + information((symbols + move).long(), tables))
                symbols = symbols + torch.tensor(MOVES)[torch.stack(costs).argmin(0)]
            encoder.add(symbols.long(), tables)
            return symbols

        decoded = self._code(side, mask, visit)
        flags = mask.pack() if self._skip_zeros else b""
        return flags + encoder.finish(), decoded

    def decode(self, stream: bytes, side: Tensor, channels: int) -> Tensor:
        """Return the latent ``[M, h, w]``, float64.

        Raises:
            InputError: The stream is damaged.
        """
        mask = ChannelMask.whole(channels)
        if self._skip_zeros:
            mask, stream = ChannelMask.unpack(stream, channels)
        decoder = Decoder(stream)

        def visit(cells: Cells, offset: Tensor, tables: Tables) -> Tensor:
            return decoder.take(len(offset), tables).double()

        decoded = self._code(side, mask, visit)
        decoder.finish()
        return decoded

    def _code(
        self, side: Tensor, mask: ChannelMask, visit: Callable[[Cells, Tensor, Tables], Tensor]
    ) -> Tensor:
        """Return the latent, whose symbols ``visit`` codes some cells at a time."""
        height, width = side.shape[1:]
        y = side.new_zeros(mask.channels, height, width)
        if not len(mask.kept):
            return y
        rest = _narrowed(*self._rest, mask)
        first = rest if self._first is None else _narrowed(*self._first, mask)
        seen = padded(y)
        whole = [all_cells(height, width)]
        passes = whole if self._context is None else self._context.passes(height, width)
        for number, cells in enumerate(passes):
            family, network = rest if number else first
            blind = number == 0 and self._first is not None
            for rows, columns in zip(*(torch.split(part, _CELLS) for part in cells), strict=True):
                if not len(rows):
                    continue
                features = side[:, rows, columns]
                if self._read is not None and not blind:
                    before = snap(self._read(seen, (rows, columns)))
                    features = torch.cat([before, features])
                parameters = network(features).view(family.parameters, -1)
                offset, tables = family.tables(parameters)
                symbols = visit((rows, columns), offset, tables)
                values = (symbols + offset).view(-1, len(rows))
                y[mask.kept[:, None], rows, columns] = values
                seen[rows[:, None] + 2, columns[:, None] + 2, mask.kept] = snap(values).T
        return y


def _narrowed(
    family: Family, network: ExactPointwise, mask: ChannelMask
) -> tuple[Family, ExactPointwise]:
    """Return the prediction of the channels that are coded."""
    if len(mask.kept) == mask.channels:
        return family, network
    outputs = torch.arange(family.parameters * mask.channels).view(-1, mask.channels)
    return family, network.only(outputs[:, mask.kept].flatten())


MakeContext = Callable[[int], Context]  # from the channels of a part of the latent


def conditional_part(
    width: int, side: int, hidden: int, make: MakeContext | None, family: Family
) -> ConditionalLatent:
    """Return a part of the latent; three 1x1 layers predict it, each after its activation.

    Args:
        width: Channels of the part.
        side: Channels of the side information.
        hidden: Channels between the layers.
        make: Makes the context; None for none.
        family: The family of distributions.
    """
    context = None if make is None else make(width)
    inputs = side + (0 if context is None else context.conv.out_channels)
    network = nn.Sequential(
        *(leaky(), conv(inputs, hidden, 1, 1)),
        *(leaky(), conv(hidden, hidden, 1, 1)),
        *(leaky(), conv(hidden, family.parameters * width, 1, 1)),
    )
    return ConditionalLatent(family, context, network)


class Hyperprior(LatentModel[Tensor]):
    """A latent y, and a small one z with side information about it (Ballé et al., ICLR 2018).

    Args:
        analysis: From y to z, which is a quarter as high and wide.
        synthesis: From z to the side information, which is as high and wide as y.
        z_channels: Channels of z.
        y_channels: Channels of y.
        latent: The model of y, given the side information.
    """

    def __init__(
        self,
        analysis: nn.Module,
        synthesis: nn.Module,
        z_channels: int,
        y_channels: int,
        latent: ConditionalLatent,
    ) -> None:
        super().__init__()
        self.analysis, self.synthesis = analysis, synthesis
        self.z = FactorizedLatent(z_channels, "z")
        self.y = latent
        self.y_channels = y_channels

    def forward(self, y: Tensor) -> tuple[Tensor, Bits]:
        """Return the rounded latent, and the bits of y and z."""
        z, rates = self.z(self.analysis(y))
        y_hat, rate = self.y(y, self.synthesis(z))
        return y_hat, {**rates, "y": rate}

    def coder(self) -> "HyperpriorCoder":
        """Return a coder with the weights as they are now."""
        return HyperpriorCoder(self)


class HyperpriorCoder:
    """The coder of a :class:`Hyperprior`; the streams are z and y."""

    def __init__(self, model: Hyperprior) -> None:
        self._analysis = model.analysis
        self._synthesis = exact(model.synthesis)
        self._z, self._y = model.z.coder(), model.y.coder()
        self._channels = model.y_channels

    def encode(
        self,
        y: Tensor,
        measure: Callable[[Tensor, Tensor], Distortion] | None = None,
        rescale: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[list[bytes], Tensor]:
        """Return both streams, and the latent ``[1, M, h, w]``, float64.

        Args:
            y: ``[1, M, h, w]``.
            measure: Tells what changes of a rounded latent ``[1, M, h, w]`` cost in the picture,
                from that one and the side information ``[1, S, h, w]``. With it, y is coded
                a second time: rate-distortion optimised quantisation, as classical encoders have
                it.
            rescale: Returns the latent that is coded, from the side information; z is that of y
                all the same. None: y.
        """
        streams, z = self._z.encode(self._analysis(y))
        side = self._synthesis(snap(z))[0]
        if rescale is not None:
            y = rescale(side[None])
        stream, decoded = self._y.encode(y[0], side)
        if measure is not None:
            stream, decoded = self._y.encode(y[0], side, measure(decoded[None], side[None]))
        return [*streams, stream], decoded[None]

    def decode(self, streams: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return the latent ``[1, M, h, w]``, float64."""
        check_streams(streams, 2)
        side = self.side(streams, height, width)
        return self._y.decode(streams[1], side[0], self._channels)[None]

    def side(self, streams: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return the side information ``[1, S, h, w]`` alone, float64."""
        z = self._z.decode(streams[:1], height // 4, width // 4)
        side: Tensor = self._synthesis(snap(z))
        return side
