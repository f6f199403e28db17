"""Commands about privacy: `privacy plan`, `privacy audit`, `privacy ledger ...`."""

import typer

from fedrec_sim.cli_attack import attack
from fedrec_sim.cli_audit import audit
from fedrec_sim.cli_ledger import ledger
from fedrec_sim.cli_plan import plan

privacy = typer.Typer(no_args_is_help=True, help="What the data have paid, and what that promises.")
privacy.add_typer(ledger, name="ledger")
privacy.command()(plan)
privacy.command()(audit)
privacy.command()(attack)
