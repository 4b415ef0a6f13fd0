"""The card of an ensemble's folder: its members, and that nobody measured it as a whole."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from bcd_models.hub import folder as model_folder
from bcd_models.models.backbones import get_backbone
from bcd_models.models.ensemble import read_config
from bcd_models.prediction import NOTICE
from training.card import provenance as card_provenance
from training.card.metadata import TAGS, TASK

TEMPLATE = Path(__file__).with_name("ensemble_card.md")


def render(folder: Path) -> str:
    """Return the text of an ensemble's card; ModelFolderError where a member can't be read."""
    config = read_config(folder)
    members = [
        (name, model_folder.read_config(folder / name), model_folder.read_weights(folder / name)[1])
        for name in config.members
    ]
    card = ModelCard.from_template(
        ModelCardData(
            license="apache-2.0",
            library_name="bcd-models",
            pipeline_tag=TASK,
            tags=[tag for tag in TAGS if tag != "bcd-models"],
            model_name=config.name,
        ),
        template_path=str(TEMPLATE),
        config=config,
        members=members,
        title=lambda backbone: get_backbone(backbone).title,
        origin=card_provenance,
        notice=NOTICE,
    )
    return str(card)
