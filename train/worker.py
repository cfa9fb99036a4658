"""One of the processes that train a stage of a run together; `processes.launch` starts them."""

import json
import os
import sys
import threading
import traceback
from pathlib import Path

from ..coder.errors import LaconicError
from .configuration import build_recipe, read_yaml
from .processes import Unanswered, note_of
from .run import Run, write_whole


def main(folder: str, stage: str, how: str, recipe: str) -> int:
    """Train; a failure is left as a note beside the recipe."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        from .pipeline import distill, pretrain

        run = Run(Path(folder), build_recipe(read_yaml(Path(recipe))))
        if how == "distilled":
            distill(run, run.recipe.training)
        else:
            pretrain(run, stage, run.recipe.training)
    except Exception as error:
        mistake = "unanswered" if isinstance(error, Unanswered) else "mistake"
        kind = mistake if isinstance(error, LaconicError) else "defect"
        message = (
            str(error) if kind == "mistake" else f"{type(error).__name__}: {error}".strip().split("\n")[0]
        )
        note = {"message": message, "kind": kind, "trace": traceback.format_exc()}
        write_whole(note_of(Path(recipe), int(os.environ["RANK"])), json.dumps(note))
        return 1
    return 0


def _end_with_the_parent() -> None:
    """Its end of our stdin closes when it ends."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what is left of a group of processes must not wait for ranks that failed
