"""Options that several commands about keys share."""

from __future__ import annotations

from datetime import datetime

import click

from packager.errors import MalformedError
from packager.format.timestamps import parse_timestamp
from packager.trust.keys import ALGORITHMS


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return parse_timestamp(value)
    except MalformedError as error:
        raise click.BadParameter(error.message) from None


not_before_option = click.option(
    "--not-before",
    callback=_moment,
    metavar="DATE",
    help="Signatures by the key count from this date on, in UTC.",
)
not_after_option = click.option(
    "--not-after",
    callback=_moment,
    metavar="DATE",
    help="They count up to the first second of this date.",
)
require_algorithm_option = click.option(
    "--require-algorithm",
    "algorithms",
    type=click.Choice(ALGORITHMS),
    multiple=True,
    help="One of the signatures must be by a key of this kind; may be given for both kinds.",
)
