"""The executor that a person asks for is the one that quantizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from support.checkpoints import files_of
from support.workplace import Workplace

from packager.connected.cache import Cache
from packager.connected.variants.gguf import Models
from packager.connected.workshop import Workshop
from packager.progress import Silent, Task
from packager.quantize.executors.job import Job
from packager.quantize.executors.threads import Threads
from packager.quantize.wanted import Wanted


@dataclass
class Watched:
    """Threads that say for how many files they ran."""

    files: list[int] = field(default_factory=list)

    def run(self, job: Job, task: Task) -> None:
        self.files.append(len(job.outs))
        Threads(1).run(job, task)


def test_all_models_that_are_missing_are_made_in_one_run_of_the_executor(
    workplace: Workplace, tmp_path: Path
) -> None:
    request = workplace.request(tmp_path)
    workshop = Workshop(
        recipe=request.recipe,
        recipe_folder=request.recipe_folder,
        lock=request.lock,
        sources=files_of(Path(request.recipe.source.path)),
        text=None,
        engine="an engine",
        libraries=tmp_path,
        cache=Cache(tmp_path / "cache"),
        progress=Silent(),
    )
    wanted = {"a": Wanted.of("F16"), "b": Wanted.of("Q8_0")}
    executor = Watched()

    made = Models(replace(workshop, executor=executor)).make(wanted)
    again = Models(replace(workshop, executor=executor)).make(wanted)

    assert executor.files == [2]
    assert made == again
