"""The verbs of `dopaint` for anybody's tables of profiles: normalise, subprofiles, biosimilarity, score, compare.

Same doors as `cli.py`: exit code 2 and one line for a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Table = Annotated[Path, typer.Argument(help="profiles: parquet, CSV, TSV (gz too) or .h5ad")]
Labels = Annotated[Path, typer.Option(help="table of labels: parquet, CSV or TSV (gz too)")]
Label = Annotated[str, typer.Option(help='column of labels; several in a cell are joined with "|"')]
ProfileKey = Annotated[str | None, typer.Option(help="metadata column that names the compound; default: InChIKey")]
LabelKey = Annotated[str | None, typer.Option(help="column of the labels that names the compound; default: InChIKey")]
Match = Annotated[
    str | None, typer.Option(help="how keys are compared: inchikey (whole), inchikey14 (first block) or exact")
]
Convention = Annotated[str | None, typer.Option(help="paper or reference")]
Folder = Annotated[Path, typer.Option(help="folder for tables and figures")]
References = Annotated[int | None, typer.Option(min=1, help="least reference compounds of a label; default: 5")]
Least = Annotated[int | None, typer.Option(min=1, help="labels with fewer compounds are left out; default: 10")]
Doors = Callable[[], AbstractContextManager[None]]


def register(app: typer.Typer, doors: Doors, console: Console) -> None:
    """Add the verbs to the command."""

    def told(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False)

    @app.command()
    def normalise(
        profiles: Table,
        steps: Annotated[Path, typer.Option(help="[[step]] tables, such as configs/profiling/mad.toml")],
        control: Annotated[str, typer.Option(help="COLUMN=VALUE of the wells to fit on, such as pert_type=negcon")],
        out: Annotated[Path, typer.Option(help="file for the profiles, by its ending")],
    ) -> None:
        """Normalise, correct, select and aggregate as a TOML says; count what goes in and out of every step."""
        with doors():
            from service.profile_tables import normalise as run
            from service.show import plain_table

            console.print(plain_table(run(profiles, steps, control, out), "Steps"))
            told(f"profiles: {out}")

    @app.command()
    def subprofiles(
        profiles: Table,
        out: Folder,
        label: Label = "moa",
        labels: Annotated[Path | None, typer.Option(help="default: the label is a column of the profiles")] = None,
        profile_key: ProfileKey = None,
        label_key: LabelKey = None,
        match: Match = None,
        convention: Convention = None,
        references: References = None,
        several: Annotated[bool, typer.Option("--several", help="keep compounds with more than one label")] = False,
        permutations: Annotated[int, typer.Option(min=1, help="random sets for the null of features kept")] = 1000,
    ) -> None:
        """Make the sub-profile of every label from its compounds; say how many features chance would keep."""
        with doors():
            from service.profile_tables import config_from, make_subprofiles
            from service.show import plain_table

            least = references or 5
            values: dict[str, object] = {"label": label, "match": match, "convention": convention, "references": least}
            values |= {
                "profile_key": profile_key,
                "label_key": label_key,
                "min_compounds": least,
                "single": not several,
            }
            summary = make_subprofiles(profiles, labels, out, config_from(values, None), permutations)
            console.print(plain_table(summary, "Sub-profiles"))
            told(f"sub-profiles, overlap and figures: {out}")

    @app.command()
    def biosimilarity(
        profiles: Table,
        subprofiles: Annotated[Path, typer.Option(help="folder of `dopaint subprofiles`, or one as published")],
        out: Annotated[Path, typer.Option(help="table of scores: CSV, TSV (gz too) or parquet, by its ending")],
        convention: Convention = None,
    ) -> None:
        """Biosimilarity of every profile to every sub-profile of a folder."""
        with doors():
            from profiling.library import score_file

            table = score_file(profiles, subprofiles, convention, out)
            columns = [c for c in table.columns if not str(c).startswith("Metadata_")]
            told(f"{len(table)} profiles x {len(columns)} labels: {out}")

    @app.command()
    def score(
        profiles: Table,
        labels: Labels,
        out: Folder,
        label: Label = "moa",
        match: Match = None,
        profile_key: ProfileKey = None,
        label_key: LabelKey = None,
        config: Annotated[Path | None, typer.Option(help="a protocol, TOML; options given here come first")] = None,
        several: Annotated[bool, typer.Option("--several", help="compounds may have more than one label")] = False,
        require: Annotated[
            list[str] | None, typer.Option(help="a further column of the labels that must not be empty, such as target")
        ] = None,
        select: Annotated[
            bool, typer.Option("--select", help="select features on the references of each fold only")
        ] = False,
        convention: Convention = None,
        folds: Annotated[int | None, typer.Option(min=1, help="random choices of references; default: 5")] = None,
        references: References = None,
        min_compounds: Least = None,
        seed: Annotated[int | None, typer.Option(min=0, help="chooses the references; default: 0")] = None,
        subset: Annotated[str | None, typer.Option(help="metadata column to report apart by, such as Seen")] = None,
        training: Annotated[
            Path | None,
            typer.Option(help="compound and batch of every training picture: marks Seen, leaves their batches out"),
        ] = None,
        smiles: Annotated[
            str | None, typer.Option(help="column of structures: the baseline by structure alone")
        ] = None,
        permutations: Annotated[int | None, typer.Option(min=1, help="for p and chance; default: 1000")] = None,
        resamples: Annotated[int | None, typer.Option(min=1, help="for intervals; default: 1000")] = None,
        umap: Annotated[
            bool, typer.Option("--umap", help="draw a UMAP too; the first one compiles for minutes")
        ] = False,
    ) -> None:
        """Score profiles by the paper's protocol: references and queries in folds, with chance, p and baselines."""
        with doors():
            from service.profile_tables import config_from, score_table
            from service.show import plain_table

            values: dict[str, object] = {
                "label": label,
                "match": match,
                "profile_key": profile_key,
                "label_key": label_key,
            }
            values |= {"convention": convention, "folds": folds, "references": references, "seed": seed}
            values |= {"min_compounds": min_compounds, "subset": subset, "permutations": permutations}
            values |= {"resamples": resamples}
            values |= {"single": False if several else None, "select_features": True if select else None}
            values |= {"require": require or None}
            report = score_table(profiles, labels, out, config_from(values, config), smiles, training, umap)
            console.print(plain_table(report.funnel, "Compounds and labels after each rule"))
            console.print(plain_table(report.summary(), "Mean over folds"))
            told(f"tables and figures: {out}")

    @app.command()
    def compare(
        runs: Annotated[list[str], typer.Argument(help="folders of `dopaint score`, each FOLDER or NAME=FOLDER")],
        out: Folder,
    ) -> None:
        """Compare methods scored in the same folds: ANOVA, Tukey's HSD, mixed model, paired test, bars with letters."""
        with doors():
            from service.profile_tables import compare_runs
            from service.show import plain_table

            made = compare_runs(runs, out)
            console.print(plain_table(made.paper_table(), "Adjusted p, Tukey's HSD (* below 0.05)"))
            told(f"tables and figure: {out}")
