"""The command ``train``: an agent that ``--agent`` names, each with options of its own."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vpxrc.cli.train.imitation import imitation
from vpxrc.cli.train.muzero import muzero
from vpxrc.cli.train.rllib import bc, marwil, ppo, sac
from vpxrc.errors import InputError

AGENTS: dict[str, Callable[..., None]] = {
    "imitation": imitation,
    "muzero": muzero,
    "ppo": ppo,
    "sac": sac,
    "bc": bc,
    "marwil": marwil,
}


class ByAgent(TyperGroup):
    """A command whose other options are those of the agent that ``--agent`` names.

    Each agent is a subcommand. Its name is not the first word but the value of ``--agent``, which
    may stand anywhere.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Hand the words after the agent's name to the agent.

        Raises:
            InputError: There is no such agent, or an option is another agent's.
        """
        name, rest = _split(args)
        if name is None:  # the help, or the complaint about the missing option
            return super().parse_args(ctx, [word for word in args if word in ctx.help_option_names])
        if name not in self.commands:
            raise InputError(f"unknown agent {name!r}: choose from {', '.join(self.commands)}")
        for option in (word.partition("=")[0] for word in rest if word.startswith("-")):
            readers = [agent for agent in self.commands if option in self._options(agent)]
            if readers and name not in readers:
                raise InputError(f"{option} is not for {name}, but for {', '.join(readers)}")
        return super().parse_args(ctx, ["--agent", name, name, *rest])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name in its usage."""
        return ["--agent NAME", "INPUTS...", "--out FILE", "[OPTIONS]"]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the agent's command, called as the user calls it."""
        name, command, rest = super().resolve_command(ctx, args)
        return f"--agent {name}", command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the agents, and the options that all of them have."""
        width = formatter.width - 6 - max(map(len, self.commands))
        with formatter.section("Agents"):
            rows = [
                (name, agent.get_short_help_str(width)) for name, agent in self.commands.items()
            ]
            formatter.write_dl(rows)
        first, *others = self.commands
        shared = set(self._options(first)).intersection(*map(self._options, others))
        with formatter.section("Options of every agent"):
            options = self.commands[first].params
            records = [option.get_help_record(ctx) for option in options if shared & {*option.opts}]
            formatter.write_dl([record for record in records if record is not None])

    def _options(self, agent: str) -> list[str]:
        return [
            name for option in self.commands[agent].params for name in option.opts if "-" in name
        ]


def _split(args: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of ``--agent``, None where there is none, and the other words."""
    name, rest, words = None, list[str](), iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option == "--agent":
            name = value if equals else next(words, None)
        else:
            rest.append(word)
    return name, rest


app = typer.Typer(cls=ByAgent)


@app.callback()
def train(
    agent: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The agent to train. `vpxrc train --agent NAME --help` has its other options.",
        ),
    ],
) -> None:
    """Train an agent, from lessons or by encoding clips.

    The lessons are those of `vpxrc teach`. A command that was interrupted or killed continues where
    it was when it is run again.

    \b
    Examples:
      vpxrc train --agent imitation lessons --out imitation.safetensors
      vpxrc train --agent muzero train/ --bitrates 64,128 --minutes 60 --out muzero.safetensors
      vpxrc train --agent muzero --help
      vpxrc evaluate --agent imitation:imitation.safetensors --baseline libvpx-vbr ...
    """  # noqa: D301 - typer wants the \b as it is


for _name, _command in AGENTS.items():
    app.command(_name)(_command)
