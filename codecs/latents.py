"""Latents: their bits in training, and their way into streams and back.

A module for training has only ``forward``. Its method ``coder`` returns what codes with the weights
that it has then: exact copies of the networks, and tables of frequencies. So no module is ever half
ready to code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vpxrc.codecs.coder import Decoder, Encoder, Tables, by_channel
from vpxrc.codecs.contexts import Context, all_cells
from vpxrc.codecs.entropy import FactorizedPrior, Family, bits
from vpxrc.codecs.exact import exact, snap
from vpxrc.codecs.layers import conv, leaky
from vpxrc.codecs.quantizers import add_noise, straight_through
from vpxrc.errors import InputError

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


def pointwise(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Return 1x1 convolutions with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [conv(inputs, width, 1, 1), leaky()]
        inputs = width
    return nn.Sequential(*layers, conv(inputs, outputs, 1, 1))


class ConditionalLatent(nn.Module):
    """A latent whose distributions are predicted from side information, and from its own cells.

    Args:
        family: The family of distributions.
        context: Which cells the prediction sees; None for none.
        network: From the features of the context (if there is one) and the side information to
            ``P M`` channels of parameters; it may look at one cell at a time only.
    """

    def __init__(self, family: Family, context: Context | None, network: nn.Module) -> None:
        super().__init__()
        self.family, self.context, self.network = family, context, network

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
        return self.family.rounded(y, parameters), bits(likelihood)

    def coder(self) -> "ConditionalCoder":
        """Return a coder with the weights as they are now."""
        return ConditionalCoder(self)


class ConditionalCoder:
    """The coder of a :class:`ConditionalLatent`."""

    def __init__(self, latent: ConditionalLatent) -> None:
        self._family = latent.family
        self._context = None if latent.context is None else exact(latent.context)
        self._network = exact(latent.network)

    def encode(self, y: Tensor, side: Tensor) -> tuple[bytes, Tensor]:
        """Return the stream, and the latent as :meth:`decode` returns it.

        Args:
            y: ``[M, h, w]``.
            side: ``[S, h, w]``, on the grid of :mod:`vpxrc.codecs.exact`.
        """
        encoder = Encoder()
        values = y.double()

        def visit(rows: Tensor, columns: Tensor, offset: Tensor, tables: Tables) -> Tensor:
            symbols = (values[:, rows, columns].flatten() - offset).round()
            encoder.add(symbols.long(), tables)
            return symbols

        decoded = self._code(side, len(y), visit)
        return encoder.finish(), decoded

    def decode(self, stream: bytes, side: Tensor, channels: int) -> Tensor:
        """Return the latent ``[M, h, w]``, float64.

        Raises:
            InputError: The stream is damaged.
        """
        decoder = Decoder(stream)

        def visit(rows: Tensor, columns: Tensor, offset: Tensor, tables: Tables) -> Tensor:
            return decoder.take(len(offset), tables).double()

        decoded = self._code(side, channels, visit)
        decoder.finish()
        return decoded

    def _code(
        self,
        side: Tensor,
        channels: int,
        visit: Callable[[Tensor, Tensor, Tensor, Tables], Tensor],
    ) -> Tensor:
        """Return the latent, whose symbols ``visit`` codes pass by pass."""
        height, width = side.shape[1:]
        y = side.new_zeros(channels, height, width)
        whole = [all_cells(height, width)]
        passes = whole if self._context is None else self._context.passes(height, width)
        for rows, columns in passes:
            if not len(rows):
                continue
            features = side[:, rows, columns]
            if self._context is not None:
                seen = snap(self._context.at(snap(y), (rows, columns)))
                features = torch.cat([seen, features])
            parameters = self._network(features[None, :, :, None])[0, :, :, 0]
            offset, tables = self._family.tables(parameters.reshape(self._family.parameters, -1))
            symbols = visit(rows, columns, offset, tables)
            y[:, rows, columns] = (symbols + offset).view(channels, len(rows))
        return y


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

    def encode(self, y: Tensor) -> tuple[list[bytes], Tensor]:
        """Return both streams, and the latent ``[1, M, h, w]``, float64."""
        streams, z = self._z.encode(self._analysis(y))
        stream, decoded = self._y.encode(y[0], self._synthesis(snap(z))[0])
        return [*streams, stream], decoded[None]

    def decode(self, streams: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return the latent ``[1, M, h, w]``, float64."""
        check_streams(streams, 2)
        z = self._z.decode(streams[:1], height // 4, width // 4)
        return self._y.decode(streams[1], self._synthesis(snap(z))[0], self._channels)[None]
