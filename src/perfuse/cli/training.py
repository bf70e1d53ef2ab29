"""`perfuse train`: pictures of one thing become a version of a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from perfuse.cli.following import follow
from perfuse.cli.options import Json, complete_concept, connect
from perfuse.cli.output import document, line, remark, remarks, say
from perfuse.client import Picture, PreviewSettings, TrainingSettings
from perfuse.client.resources import StoredLock
from perfuse.client.training import MaskSource
from perfuse.client.uploads import read_pictures
from perfuse.errors import NotFound

_SUBJECT, _LEARNING, _PREVIEWS = "What is taught", "How it is learned", "Previews"


def train(
    context: typer.Context,
    concept: Annotated[
        str,
        typer.Argument(
            metavar="CONCEPT",
            help="Its id: the word in brackets in prompts. Made if it is new.",
            autocompletion=complete_concept,
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES...", help="Pictures of it, or folders; 4 to 8 are usual."),
    ],
    super_category: Annotated[
        str, typer.Option(metavar="NOUN", help="The everyday noun that it is a kind of, as cat.")
    ],
    description: Annotated[
        str, typer.Option(help="Of the version to come.", rich_help_panel=_SUBJECT)
    ] = "",
    base_model: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="To learn on; not needed where the Trainer has only one.",
            rich_help_panel=_SUBJECT,
        ),
    ] = "",
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Masks, bright where the thing is: a PNG for each picture, of its name.",
            rich_help_panel=_SUBJECT,
        ),
    ] = None,
    mask_source: Annotated[
        MaskSource | None,
        typer.Option(
            case_sensitive=False,
            help="Where masks come from; UPLOADED where --masks is given, else NONE.",
            rich_help_panel=_SUBJECT,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Of the optimiser; 400 if not said.", rich_help_panel=_LEARNING),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Rows of a step; 16 if not said.", rich_help_panel=_LEARNING)
    ] = None,
    output_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate of the concept's values; 0.03 if not said.",
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.", rich_help_panel=_LEARNING)] = 0,
    key_lock: Annotated[
        StoredLock,
        typer.Option(
            case_sensitive=False,
            help="How keys are tied to the noun: LOCAL generalises, TRAINED_K resembles more.",
            rich_help_panel=_LEARNING,
        ),
    ] = "LOCAL",
    flip: Annotated[
        float | None,
        typer.Option(
            help="How often a picture is mirrored, 0 to 1; 0 for what has a left and a right. "
            "0.5 if not said.",
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="End early after so many validations without a better one.",
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(help="Steps between validations; 25 if not said.", rich_help_panel=_LEARNING),
    ] = None,
    exclusive: Annotated[
        bool,
        typer.Option(
            "--exclusive",
            help="Share no pass with other runs: slower, and repeatable byte for byte.",
            rich_help_panel=_LEARNING,
        ),
    ] = False,
    previews: Annotated[
        bool,
        typer.Option(
            "--previews",
            help="Render the unfinished concept now and then.",
            rich_help_panel=_PREVIEWS,
        ),
    ] = False,
    preview_prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROMPT",
            help='Of previews, as "a photo of <> in the snow"; may be given several times.',
            rich_help_panel=_PREVIEWS,
        ),
    ] = None,
    preview_every: Annotated[
        int | None,
        typer.Option(help="Steps between previews; 100 if not said.", rich_help_panel=_PREVIEWS),
    ] = None,
    save_previews: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="Keep previews as files.", rich_help_panel=_PREVIEWS
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Queue the run, print its id, and end.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Ctrl-C cancels the run, instead of leaving it alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Teach a concept from pictures, and follow the training to its version.

    Ctrl-C leaves the run to go on (the status is 130 all the same: there is no version yet);
    `perfuse runs watch RUN` follows it again, `perfuse runs cancel RUN` ends it.
    """
    pictures = read_pictures(images)
    settings = TrainingSettings(
        steps=steps,
        batch=batch,
        output_rate=output_rate,
        seed=seed,
        mask_source=mask_source or ("NONE" if masks is None else "UPLOADED"),
        flip=flip,
        patience=patience,
        validate_every=validate_every,
        exclusive=exclusive,
        previews=_previews(
            concept, previews or save_previews is not None, preview_prompt, preview_every
        ),
    )
    with connect(context) as client:
        with remarks().status(f"sending {len(pictures)} pictures"):
            run = client.train(
                concept,
                pictures,
                super_category=super_category,
                masks=None if masks is None else masks_of(pictures, masks),
                settings=settings,
                key_lock=key_lock,
                base_model=base_model,
                description=description,
            )
        if detach:
            if as_json:
                document(run)
            else:
                say(run.id)
                remark(f"Follow it: perfuse runs watch {run.id}")
            return
        if as_json:
            line({"event": "queued", "run": run})
        follow(client, run, cancel=cancel, as_json=as_json, previews=save_previews)


def masks_of(pictures: Sequence[Picture], folder: Path) -> Mapping[str, Path]:
    """File name of a picture → its mask in a folder: the PNG of the same name.

    Raises:
        NotFound: a picture has no mask there.
    """
    found: dict[str, Path] = {}
    for picture in pictures:
        path = folder / f"{Path(picture.file_name).stem}.png"
        if not path.is_file():
            raise NotFound(
                f"{picture.file_name} has no mask: {path} is not there. Draw one, white where the "
                "thing is, or leave --masks out"
            )
        found[picture.file_name] = path
    return found


def _previews(
    concept: str, asked: bool, prompts: Sequence[str] | None, every: int | None
) -> PreviewSettings | None:
    if not (asked or prompts or every):
        return None
    # People write the concept's own placeholder; the Trainer's is the empty one.
    own = f"<{concept.rpartition('/')[2]}>"
    return PreviewSettings(
        prompts=tuple(prompt.replace(own, "<>") for prompt in prompts or ()), every=every
    )
