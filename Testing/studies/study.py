"""Run a study: every arm, fold and seed of its table, one after the other, stopped at any time.

    python Testing/studies/study.py few-labels --data Task04_Hippocampus --work runs
    python Testing/studies/study.py ct-mr --data ct=Sarcoma/CT mr=Sarcoma/MR --work runs
    python Testing/studies/study.py few-labels --table

A study is a TOML file beside this one. Each run is `distillseg train` and `distillseg evaluate`
with the arm's settings; what it scored on each held-out case is kept in `results/<study>/`, a small
file for each run, and a run that has one is not repeated. A run that was killed goes on from its
last epoch when the command is given again. Guides, such as a teacher, are trained once for each
fold. Of several data sets, each structure is scored by data set ("ct Tumour"); an arm may train a
network for each by itself. Table and picture are made from the kept results alone, by
`study_table.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from DistillSegLib.benchmark.hardware import processor
from DistillSegLib.commands.train import read_domains
from DistillSegLib.errors import DistillSegError, RecipeError
from DistillSegLib.files import write_text
from DistillSegLib.package import load_package
from DistillSegLib.places import recipes
from DistillSegLib.records import from_dict
from DistillSegLib.training.recipe import load_recipe

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
METRICS = ("dice", "hd95_mm", "nsd")
Data = Mapping[str, Path]  # data set by domain; "" where there is one only


@dataclass(frozen=True)
class Arm:
    """A row of the table.

    Attributes:
        title: what the row says.
        set: overrides of the study's recipe, as `--set` takes them; "{teacher}" becomes the
            checkpoint of the guide of that name, and {domains} those of the run's data sets.
        apart: whether each data set has a network of its own.
        against: the arm that it is tested against, where this is not the study's baseline.
        recipe: where it is not the study's; has a stage of the same name. All its stages are the
            arm's cost.
        package: a bundled model that is scored as it is, in place of a training.
        nnunet: options of `train_nnunet.py`, in place of a training of ours.
    """

    name: str
    title: str
    set: tuple[str, ...] = ()
    apart: bool = False
    against: str = ""
    recipe: str = ""
    package: str = ""
    nnunet: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guide:
    """A network that arms learn from: a stage of another recipe, trained once for each fold.

    Attributes:
        package: a bundled model that was trained on the fold, in place of a recipe's stage.
        stored: whether its answers are stored once, by `store_maps.py`, and the network stays away.
    """

    recipe: str = ""
    stage: str = ""
    role: str = ""
    set: tuple[str, ...] = ()
    package: str = ""
    stored: bool = False

    def __post_init__(self) -> None:
        trained = (self.recipe, self.stage, self.role)
        if all(trained) == bool(self.package) or any((*trained, *self.set)) == bool(self.package):
            raise ValueError("a guide is a recipe's stage and role, or a package.")


@dataclass(frozen=True)
class Study:
    """What is compared with what.

    Attributes:
        data: the organ or body part whose data set it is on, as the pictures name it.
        recipe: bundled, or a file beside the study's.
        stage, role: the network that is scored.
        baseline: the arm that the others are tested against.
        size: what is smaller here than it should be, and what holds for all runs; stands below the
            table.
    """

    name: str
    title: str
    recipe: str
    stage: str
    baseline: str
    arms: tuple[Arm, ...]
    size: str
    role: str = "student"
    data: str = ""
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    guides: dict[str, Guide] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.baseline not in names or len(set(names)) != len(names):
            raise ValueError(f"baseline is '{self.baseline}'; the arms are {', '.join(names)}.")
        for arm in self.arms:
            if arm.against and arm.against not in names:
                raise ValueError(
                    f"arm '{arm.name}' is tested against '{arm.against}'; the arms are "
                    f"{', '.join(names)}."
                )
        if self.guides and any(arm.apart for arm in self.arms):
            raise ValueError("an arm trains each data set apart, and a guide knows one only.")


@dataclass(frozen=True)
class Run:
    """One training of one arm."""

    arm: Arm
    fold: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-f{self.fold}-s{self.seed}"


def load_study(name: str) -> Study:
    """The study of that name; RecipeError names an unknown key."""
    path = HERE / f"{name}.toml"
    return from_dict(Study, {"name": name} | tomllib.loads(path.read_text(encoding="utf-8")))


def queue(study: Study) -> Iterator[Run]:
    """All runs; every arm once before any comes again, so that what is done can be compared."""
    for seed in study.seeds:
        for fold in study.folds:
            for arm in study.arms:
                yield Run(arm, fold, seed)


def result_of(study: Study, run: Run, results: Path = RESULTS) -> Path:
    """Where the scores of a run are kept."""
    return results / study.name / f"{run.name}.json"


def command(*words: object) -> None:
    """A command of `distillseg`, in a process of its own; the same Python."""
    subprocess.run([sys.executable, "-m", "DistillSegLib.cli", *map(str, words)], check=True)


def script(name: str, *words: object) -> None:
    """A script beside this one, in a process of its own; DistillSeg may be installed or not."""
    places = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    full = [sys.executable, str(HERE / name), *map(str, words)]
    subprocess.run(full, check=True, env=environment)


def recipe_path(name: str) -> Path | str:
    """A recipe beside the studies, or the name of a bundled one."""
    return HERE / name if name.endswith(".toml") else name


def recipe_file(name: str) -> Path:
    """The file of either."""
    return HERE / name if name.endswith(".toml") else recipes()[name]


def words_of(data: Data) -> list[str]:
    """Data sets as `--data` takes them."""
    return [f"{domain}={path}" if domain else str(path) for domain, path in data.items()]


def folder_of(study: Study, name: str, fold: int, work: Path) -> Path:
    """The run of a guide; guides that are stages of one recipe share it."""
    guide = study.guides[name]
    if guide.package:  # by id and version, lest another model's maps are taken for its
        return work / f"{load_package(guide.package).manifest.name}-f{fold}"
    form = (guide.recipe, guide.set)
    first = next(n for n, other in study.guides.items() if (other.recipe, other.set) == form)
    return work / f"{first}-f{fold}"


def check_guide(study: Study, name: str, fold: int, folder: Path) -> None:
    """RecipeError if a guide's folder holds a run of another recipe, or one that saw other cases.

    Its cache is trained from: another study's guide would bring the wrong patients with it.
    """
    guide = study.guides[name]
    if guide.package:
        check_package(study, guide.package, fold)
        return
    path = folder / "recipe.json"
    if not path.is_file():
        return
    recipe = study.guides[name].recipe
    wanted = tomllib.loads(recipe_file(recipe).read_text(encoding="utf-8"))["name"], fold
    made = json.loads(path.read_text(encoding="utf-8"))
    found = made["name"], made["split"]["fold"]
    if found != wanted:
        raise RecipeError(
            f"'{folder}' holds the recipe '{found[0]}', fold {found[1]}; the guide '{name}' of the "
            f"study '{study.name}' is of '{wanted[0]}', fold {wanted[1]}. Give another --work."
        )


def check_package(study: Study, name: str, fold: int) -> None:
    """RecipeError unless a package was trained on the fold: otherwise it has seen the answers."""
    recipe = load_recipe(recipe_path(study.recipe), [f"split.fold={fold}"])
    provenance = load_package(name).manifest.provenance
    wanted = {key: getattr(recipe.split, key) for key in ("folds", "fold", "seed")}
    found = {key: provenance.get("split", {}).get(key) for key in wanted}
    if found != wanted:
        raise RecipeError(
            f"the package '{name}' was trained on the split {found}, and the study '{study.name}' "
            f"asks it to teach {wanted}, of which it may have seen the answers; take another guide."
        )


def train_guides(
    study: Study, fold: int, data: Data, work: Path, extra: Sequence[str]
) -> dict[str, Path]:
    """The folders of the guides' runs, trained now unless they are."""
    folders = {}
    for name, guide in study.guides.items():
        folder = folders[name] = folder_of(study, name, fold, work)
        check_guide(study, name, fold, folder)
        if guide.recipe and not (folder / guide.stage / f"{guide.role}.pt").is_file():
            sets = [f"split.fold={fold}", *extra, *guide.set]
            options = ["--data", *words_of(data), "--out", folder, "--resume", "--set", *sets]
            command("train", recipe_path(guide.recipe), *options)
        if guide.stored:
            store_maps(guide, folder, data)
    return folders


def store_maps(guide: Guide, folder: Path, data: Data) -> None:
    """What a guide says of the cases it was trained on; those that are there already stay."""
    (word,) = words_of(data)
    source = [folder, "--stage", guide.stage, "--role", guide.role]
    words = [guide.package] if guide.package else source
    script("store_maps.py", *words, "--data", word, "--out", folder / "maps")


def train(study: Study, run: Run, data: Data, out: Path, work: Path, extra: Sequence[str]) -> None:
    """Train a run to its end, in `out`."""
    folders = train_guides(study, run.fold, data, work, extra)
    known = {name: teacher_of(study, name, folder) for name, folder in folders.items()}
    known["domains"] = "[" + ",".join(f"'{domain}'" for domain in data) + "]"
    sets = [f"split.fold={run.fold}", f"seed={run.seed}", *extra]
    for setting in run.arm.set:
        for name, value in known.items():
            setting = setting.replace(f"{{{name}}}", str(value))
        sets.append(setting)
    stored = any(guide.stored for guide in study.guides.values())  # which no guide's cache holds
    folders = {} if stored else folders
    caches = [folder / "cache" for folder in folders.values() if (folder / "cache").is_dir()]
    source = [caches[0]] if caches and len(data) == 1 else words_of(data)
    options = ["--data", *source, "--out", out, "--resume", "--set", *sets]
    command("train", recipe_path(run.arm.recipe or study.recipe), *options)


def teacher_of(study: Study, name: str, folder: Path) -> str:
    """A guide as a recipe names it: its checkpoint, a package, or the folder of its stored maps."""
    guide = study.guides[name]
    if guide.stored:
        return f"{{stored='{folder / 'maps'}'}}"
    if guide.package:
        return f"{{package='{guide.package}'}}"
    return str(folder / guide.stage / f"{guide.role}.pt")


def collect(study: Study, run: Run, parts: Mapping[Path, Data]) -> dict[str, Any]:
    """Who was scored how, and what it cost.

    Args:
        parts: the folder of each network that the run trained -> the data sets it knows.
    """
    cases: dict[str, dict[str, list]] = {}
    parameters, labelled, spent = 0, 0, []
    for folder, data in parts.items():
        for word in words_of(data):
            scores = folder / "scores.json"
            which = ["--stage", study.stage, "--role", study.role]
            command("evaluate", folder, *which, "--data", word, "--json", scores)
            domain = word.partition("=")[0] + " " if "" not in data else ""
            for case, found in scores_in(scores).items():
                named = {domain + structure: values for structure, values in found.items()}
                cases[domain + case] = named
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        parameters += summary["stages"][study.stage]["parameters"][study.role]
        spent.append(list(summary["stages"].values()))
        labelled += _labelled(summary["provenance"])
    return {
        "parameters": parameters,
        "epochs": sum(stage["epochs"] for stage in spent[0]),
        "labelled_cases": labelled,
        "cpu_minutes": round(sum(s["cpu_seconds"] for each in spent for s in each) / 60, 2),
        "minutes": round(sum(s["seconds"] for each in spent for s in each) / 60, 2),
        "cases": cases,
    }


def scores_in(path: Path) -> dict[str, dict[str, list]]:
    """Case -> structure -> its METRICS, of what `distillseg evaluate --json` wrote."""
    cases: dict[str, dict[str, list]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        values = [None if row[key] is None else round(row[key], 4) for key in METRICS]
        cases.setdefault(row["case"], {})[row["structure"]] = values
    return cases


def _labelled(provenance: Mapping[str, Any]) -> int:
    """Labelled cases of all data sets together."""
    each = provenance.get("domains", {"": provenance})
    return sum(one["labelled_cases"] for one in each.values())


def check_kept(study: Study, run: Run, path: Path) -> None:
    """RecipeError if a kept run had other settings than its arm and its recipe have now."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    now = settings(study, run)
    changed = [key for key in now if kept.get(key, now[key]) != now[key]]
    if changed:
        raise RecipeError(
            f"'{path}' was made with another {' and another '.join(changed)} than the study "
            f"'{study.name}' has now; delete it to repeat the run, or set that back."
        )


def settings(study: Study, run: Run) -> dict[str, Any]:
    """What makes a run what it is, beside fold and seed: its overrides, and its recipe's digest."""
    file = recipe_file(run.arm.recipe or study.recipe)
    recipe = json.dumps(tomllib.loads(file.read_text(encoding="utf-8")), sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return {"set": list(run.arm.set or run.arm.nnunet), "recipe": digest}


def do(study: Study, run: Run, data: Data, work: Path, extra: Sequence[str]) -> dict[str, Any]:
    """Train and score one run; what is kept of it."""
    out = work / study.name / run.name
    if run.arm.package or run.arm.nnunet:
        from study_peers import nnunet, package

        (path,) = data.values()
        found = package(run, path, out) if run.arm.package else nnunet(study, run, path, out)
    else:
        parts = {out: data}
        if run.arm.apart:
            parts = {out.with_name(f"{out.name}-{name}"): {name: data[name]} for name in data}
        for folder, its in parts.items():
            train(study, run, its, folder, work, extra)
        found = collect(study, run, parts)
    what = {"arm": run.arm.name, "fold": run.fold, "seed": run.seed}
    machine = f"{processor()}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
    what |= settings(study, run) | {"machine": machine, "options": list(extra)}
    return what | {"metrics": list(METRICS)} | found


def work_off(
    study: Study,
    data: Data,
    work: Path,
    extra: Sequence[str],
    minutes: float,
    results: Path = RESULTS,
) -> bool:
    """Do what is not done yet; whether all is, when no run was begun after the time was over."""
    begun = time.monotonic()
    for run in queue(study):
        path = result_of(study, run, results)
        if path.is_file():
            check_kept(study, run, path)
            continue
        if time.monotonic() - begun > 60 * minutes:
            return False
        print(f"{study.name}: {run.name}", flush=True)
        kept = do(study, run, data, work, extra)
        write_text(path, json.dumps(kept, separators=(",", ":")) + "\n")
    return True


def main() -> None:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=sorted(path.stem for path in HERE.glob("*.toml")))
    parser.add_argument("--data", nargs="+", metavar="[DOMAIN=]DIR", help="folder of the data set")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for the runs")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    parser.add_argument("--set", nargs="*", default=[], help="of the machine, such as workers=0")
    parser.add_argument("--table", action="store_true", help="only table and picture")
    options = parser.parse_args()
    study = load_study(options.study)
    done = True
    if not options.table:
        if options.data is None:
            parser.error("give the data set with --data, or --table")
        try:
            data = read_domains(options.data)
            done = work_off(study, data, options.work, options.set, options.minutes)
        except DistillSegError as problem:
            raise SystemExit(str(problem)) from problem
    if options.table or done:
        from study_table import publish

        publish(study)


if __name__ == "__main__":
    main()
