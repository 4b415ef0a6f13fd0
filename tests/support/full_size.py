"""Synthetic archives of the two full downloads' sizes and names, to try the whole pipeline on.

python -m tests.support.full_size --out FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tests.support import synthetic

# 277,524 patches of 279 cases, each in the archive twice, as in Kaggle's.
IDC: dict[str, Any] = {"cases": 279, "patches_per_case": 994, "slivers": 198, "twice": True}
# 7,910 images where BreaKHis has 7,909, of patients with equally many.
BREAKHIS: dict[str, Any] = {"patients_per_class": 35, "images_per_patient": 113}


def main(
    out: Annotated[Path, typer.Option(help="Folder for idc.zip and breakhis.tar.gz.")],
) -> None:
    """Write both archives."""
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(synthetic.breakhis_tar(out / "breakhis.tar.gz", **BREAKHIS))
    typer.echo(synthetic.idc_zip(out / "idc.zip", **IDC))


if __name__ == "__main__":
    typer.run(main)
