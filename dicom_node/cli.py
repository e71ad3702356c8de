"""The command line: options in, one command called, errors as one sentence, exit codes. The composition root."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dicom_node import VERSION, steps
from dicom_node.errors import EvenrayError
from dicom_node.exits import Exit

EPILOG = (
    "Exit codes: 0 all done; 1 the command ran, but something in it failed (a file not sent, a fault found); "
    "2 wrong usage, input or configuration; 130 interrupted."
)

app = typer.Typer(
    name="evenray",
    help="Makes X-ray images of different vendors look alike, and can say what it did and why. "
    "Not a medical device: for research and quality assurance.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
references_app = typer.Typer(help="Banks of preferred references: what images should look like.", no_args_is_help=True)
app.add_typer(references_app, name="references")
audit_app = typer.Typer(help="What was done to which image, from the reports alone.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; without one the embedded defaults hold.")
]
StateDir = Annotated[Path | None, typer.Option("--state-dir", help="State directory instead of the configured one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        typer.echo(f"evenray {VERSION}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def serve(
    role: Annotated[
        str | None,
        typer.Argument(help="listen, work, deliver or upkeep alone (for containers); without one all of them run."),
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the node until SIGTERM or Ctrl-C; what is in hand is finished first."""
    from dicom_node.commands.serve import serve as command

    raise typer.Exit(command(role, config, state_dir, supervised=supervised))


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder of them.")],
    to: Annotated[str, typer.Argument(metavar="AE@HOST:PORT", help="Where to, for example EVENRAY@127.0.0.1:11112.")],
    calling: Annotated[str, typer.Option(help="Our own AE title.")] = "EVENRAY_SCU",
    tls: Annotated[bool, typer.Option("--tls", help="Over TLS; so does each option of TLS.")] = False,
    tls_trusted: Annotated[
        Path | None, typer.Option(help="The peer's certificate or its authority's, PEM. [default: this machine's]")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Our own certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    no_tls_hostname_check: Annotated[
        bool, typer.Option("--no-tls-hostname-check", help="Take a trusted certificate that is for another name.")
    ] = False,
) -> None:
    """Send DICOM files by C-STORE, in the transfer syntax they have."""
    from dicom_node.commands.send import over_tls
    from dicom_node.commands.send import send as command

    secure = tls or tls_trusted or tls_certificate or tls_key or no_tls_hostname_check
    over = over_tls(tls_trusted, tls_certificate, tls_key, check_hostname=not no_tls_hostname_check) if secure else None
    raise typer.Exit(command(path, to, calling, over))


@app.command()
def pull(
    source: Annotated[str, typer.Argument(metavar="NAME", help="A source of the configuration: `sources`.")],
    study: Annotated[list[str] | None, typer.Option(help="Study Instance UID; may be repeated.")] = None,
    accession: Annotated[str, typer.Option(help="Accession Number.")] = "",
    patient: Annotated[str, typer.Option(help="Patient ID.")] = "",
    date: Annotated[str, typer.Option(help="Study Date: 20240131, 20240101-20240131, 20240101- or -20240131.")] = "",
    modality: Annotated[
        str, typer.Option(help="Series of these only, like CR,DX,MG; default: what the routes take. ALL: any.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be fetched, and fetch nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Fetch no more images than this.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Images a minute instead of `pull.images_per_minute`.")
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Fetch studies from an archive into the running node; again, it goes on where it stopped."""
    from dicom_node.commands.pull import pull as command
    from dicom_node.sources.query import wanted

    question = partial(wanted, studies=tuple(study or ()), accession=accession, patient=patient, dates=date)
    raise typer.Exit(
        command(source, question, modality, config, state_dir, dry_run=dry_run, limit=limit, rate=rate, as_json=as_json)
    )


@app.command()
def status(
    config: Config = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
    timing: Annotated[bool, typer.Option("--timing", help="Where the time of the last images went.")] = False,
) -> None:
    """Show what is received, waiting, decided, delivered and parked, and how long the queue is in time."""
    from dicom_node.commands.status import status as command

    raise typer.Exit(command(config, state_dir, as_json=as_json, timing=timing))


@app.command()
def health(config: Config = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Say whether the node lives and can receive right now; the exit code is 1 when it can't."""
    from dicom_node.commands.health import health as command

    raise typer.Exit(command(config, state_dir, as_json=as_json))


@app.command()
def retry(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[instance:N|batch:N|delivery:N|promise:N]...", help="As `status` shows them."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that is parked (conflicts only by name).")
    ] = False,
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Try again what is parked."""
    from dicom_node.commands.retry import retry as command

    raise typer.Exit(command(what or [], config, state_dir, everything=everything))


@app.command()
def verify(
    config: Config = None,
    state_dir: StateDir = None,
    of_backup: Annotated[Path | None, typer.Option("--backup", help="A backup instead of the node's spool.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read every file of the spool, or of a backup, now and compare it with its digest."""
    from dicom_node.commands.verify import verify as command

    raise typer.Exit(command(config, state_dir, of_backup, as_json=as_json))


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="A folder, best on another disk; what it has already is not copied.")],
    config: Config = None,
    state_dir: StateDir = None,
) -> None:
    """Copy ledger, spool, banks and configuration to a folder, while the node runs."""
    from dicom_node.commands.backup import backup as command

    raise typer.Exit(command(target, config, state_dir))


@app.command()
def restore(
    source: Annotated[Path | None, typer.Argument(help="A backup made by `evenray backup`.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    force: Annotated[bool, typer.Option("--force", help="Move what is in the state directory aside first.")] = False,
    ledger_only: Annotated[
        bool, typer.Option("--ledger-only", help="Only the ledger: the spool is whole, and newer than the backup.")
    ] = False,
    from_spool: Annotated[
        bool, typer.Option("--from-spool", help="No backup: take originals in again that no row of a ledger names.")
    ] = False,
) -> None:
    """Restore a node that does not run from a backup, or rebuild a lost ledger from the spool."""
    from dicom_node.commands.restore import restore as command

    raise typer.Exit(command(source, config, state_dir, force=force, ledger_only=ledger_only, from_spool=from_spool))


@app.command()
def harmonize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A DICOM or PNG file, or a folder of them.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A folder; made where it is not there.")],
    config: Config = None,
    bank: Annotated[
        str | None, typer.Option(help="Bank to compare with; needed for PNG where there are several.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Methods to try, in order; default: the route's.")] = None,
) -> None:
    """The node's engine on files, without a network: DICOM gives DICOM results and a report, PNG gives PNG."""
    from dicom_node.commands.harmonize import harmonize as command

    raise typer.Exit(command(source, target, config, bank, tuple(method or ())))


@app.command("check-config")
def check_config(file: Annotated[Path, typer.Argument(help="The configuration file.")]) -> None:
    """Check a configuration: all faults at once, each with its path, what was expected and a suggestion."""
    from dicom_node.commands.check_config import check_config as command

    raise typer.Exit(command(file))


@app.command()
def settings() -> None:
    """List every setting of the configuration file with its default and meaning."""
    from dicom_node.settings_reference import entries

    for entry in entries():
        default = f" (default {entry.default})" if entry.default else " (needed)"
        typer.echo(f"{entry.path}{default}\n    {entry.meaning}")


@app.command()
def doctor(config: Config = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Check this machine and its peers: decoders, GPU, disk, ports, banks, destinations by C-ECHO."""
    from dicom_node.commands.doctor import doctor as command

    raise typer.Exit(command(config, state_dir, as_json=as_json))


@app.command()
def demo(
    source: Annotated[
        Path | None, typer.Option("--input", help="DICOM file or folder instead of the generated phantom.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where pictures, report and the archive's files go.")] = Path(
        "evenray-demo"
    ),
) -> None:
    """Show the main job: a study from a modality through the node to a small embedded archive, and what came of it."""
    from dicom_node.demo.show import show

    raise typer.Exit(show(source, out))


@references_app.command("add")
def references_add(
    bank: Annotated[str, typer.Argument(help="Name of the bank; a new one is made.")],
    files: Annotated[list[Path], typer.Argument(help="DICOM or PNG files or folders of preferred images.")],
    config: Config = None,
    modality: Annotated[list[str] | None, typer.Option(help="Exam type of a new bank: modalities.")] = None,
    body_part: Annotated[str | None, typer.Option(help="Exam type of a new bank: body part.")] = None,
    view: Annotated[list[str] | None, typer.Option(help="Exam type of a new bank: views; none: any.")] = None,
    provenance: Annotated[str, typer.Option(help="Where the references come from, kept in the bank.")] = "",
) -> None:
    """Add references to a bank (statistics only: no pixels are kept)."""
    from dicom_node.commands.references import add as command

    raise typer.Exit(command(bank, files, config, modality or [], body_part, view or [], provenance))


@references_app.command("list")
def references_list(config: Config = None, as_json: AsJson = False) -> None:
    """List the banks."""
    from dicom_node.commands.references import list_banks as command

    raise typer.Exit(command(config, as_json=as_json))


@references_app.command("show")
def references_show(
    bank: Annotated[str, typer.Argument(help="Name of the bank.")], config: Config = None, as_json: AsJson = False
) -> None:
    """Show one bank: exam type, references, threshold, provenance."""
    from dicom_node.commands.references import show as command

    raise typer.Exit(command(bank, config, as_json=as_json))


@references_app.command("remove")
def references_remove(
    bank: Annotated[str, typer.Argument(help="Name of the bank.")],
    reference: Annotated[list[str] | None, typer.Argument(help="Ids of references (the start is enough).")] = None,
    config: Config = None,
    whole: Annotated[bool, typer.Option("--whole", help="Remove the whole bank.")] = False,
) -> None:
    """Remove references from a bank, or the whole bank."""
    from dicom_node.commands.references import remove as command

    raise typer.Exit(command(bank, reference or [], config, whole=whole))


@audit_app.command("show")
def audit_show(
    paths: Annotated[list[Path] | None, typer.Argument(help="Reports, or folders with reports in them.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Fetch them from this archive of the configuration (`sources`).")
    ] = None,
    study: Annotated[list[str] | None, typer.Option(help="Of an archive: Study Instance UID.")] = None,
    patient: Annotated[str, typer.Option(help="Of an archive: Patient ID.")] = "",
    accession: Annotated[str, typer.Option(help="Of an archive: accession number.")] = "",
    date: Annotated[str, typer.Option(help="Of an archive: study date, 20240131 or 20240101-20240131.")] = "",
    port: Annotated[
        int | None, typer.Option(help="Of an archive without C-GET: the port where it reaches us for C-MOVE.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    config: Config = None,
) -> None:
    """One row an image: outcome, distances, method, bank, digests. Reads reports from files or from an archive."""
    from dicom_node.commands.audit_show import Question, show

    asked = Question(source or "", tuple(study or ()), patient, accession, date, port)
    raise typer.Exit(show(paths or [], asked, form, config))


@audit_app.command("replay")
def audit_replay(
    originals: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The original, or a folder of originals.")],
    reports: Annotated[Path, typer.Argument(metavar="SR", help="The report, or a folder with reports.")],
    result: Annotated[
        Path | None, typer.Option("--result", help="The object that was sent, or a folder of them, to compare as well.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A folder for pictures of what was not reproduced.")] = None,
    config: Config = None,
) -> None:
    """Make the pixels again from original and report, and say whether they are those that were sent."""
    from dicom_node.commands.audit_replay import audit_replay as command

    raise typer.Exit(command(originals, reports, result, out, config))


def main() -> None:
    """Run the command line; every expected fault is one sentence on standard error."""
    try:
        steps.arm(os.environ)
        app()
    except EvenrayError as fault:
        print(f"evenray: {fault}", file=sys.stderr)
        sys.exit(Exit.USAGE)
    except OSError as fault:
        print(f"evenray: {fault.filename or 'this machine'}: {fault.strerror or fault}", file=sys.stderr)
        sys.exit(Exit.USAGE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
