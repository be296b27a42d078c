"""Options that say where and how to run: never part of a fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from facegan.core.options import Options
from facegan.runtime.engines import ENGINES, EngineConfig

if TYPE_CHECKING:
    AnyEngine = EngineConfig
else:
    AnyEngine = ENGINES.union()


class Runtime(Options):
    """Where and how to run: never part of a fingerprint."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    jobs: int = Field(0, ge=0, le=256, description="stages run side by side; 0: two, or one on a GPU")
    threads: int = Field(0, ge=0, le=1024, description="threads of each stage; 0: the cores shared out")
    nproc_per_node: int = Field(
        1, ge=1, le=64, description="ranks that train one network together, as torchrun's option; GPUs: one each"
    )
    batch_gpu: int = Field(
        0, ge=0, description="images of a generator's batch that a rank works on at once, to take less memory; 0: all"
    )
    readers: int = Field(
        0, ge=0, le=256, description="processes of each rank that augment a recognizer's batches ahead; 0: none"
    )
    engine: AnyEngine = Field(
        default_factory=lambda: ENGINES.get("local")(), description="who works on the shards of synthesize"
    )
    shard_images: int = Field(
        500, ge=1, le=1_000_000, description="candidates drawn in one shard, whole people; what a stop may cost"
    )
    log_interval_s: float = Field(1.0, gt=0, description="least time between two progress events of a stage")
    store: str | None = Field(
        None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._=-]*)*$",
        description="s3://bucket/prefix: finished stages lie there and not below the working directory",
    )
    cache_gb: float = Field(
        0.0, ge=0, description="of manifests on object storage that are kept on this disk once read; 0: none"
    )
