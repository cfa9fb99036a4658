"""A recipe: everything that a run depends on but its corpus and its folder."""

from dataclasses import dataclass, field
from typing import Literal

from ..coder.ngram import MOST_NODES, NgramConfig
from ..models.config import ModelConfig

Strategy = Literal["auto", "ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3"]

BYTES_PER_TOKEN = 4  # that text for validation is reckoned with
LEAST_SAMPLE_BYTES = 32_000_000


@dataclass
class DataRecipe:
    """Which text is kept out of training, and how the rest is read."""

    validation_share: float = 0.01  # of the documents, by a hash of their content
    test_share: float = 0.01  # likewise: read by nobody but you
    train_share: float = 1.0  # of all other documents, likewise: learnt from (the tokenizer may see them all)
    validation_tokens: int = 200_000  # validation reads at most so many
    streaming: bool = False  # tokenise while training; on disk are tokens of a sample alone
    shuffle_bytes: int = 16_000_000  # streaming: text whose sequences are shuffled, of each rank
    skip_unreadable: bool = False  # leave files out from where they cannot be read, and name them at the end

    @property
    def held_bytes(self) -> int:
        """Streaming: text that is read for a sample with all of the validation text."""
        return max(
            LEAST_SAMPLE_BYTES, round(BYTES_PER_TOKEN * self.validation_tokens / self.validation_share)
        )


@dataclass
class TokenizerRecipe:
    """How text is cut into tokens."""

    kind: Literal["bpe", "wordpiece", "unigram", "bytes"] = "bpe"
    vocab_size: int = 2048
    sample_bytes: int = 32_000_000  # training text that the tokenizer learns from, at most
    source: str | None = None  # a checkpoint, or the folder of a run, whose tokenizer is taken as it is


@dataclass
class NgramRecipe:
    """An n-gram model: which n-grams are counted, and how many of them are kept."""

    order: int = 5  # tokens of the longest n-gram
    min_count: int = 2  # n-grams of two tokens and more that occur less often are left out
    max_bytes: int | None = 1_000_000  # of the checkpoint; null: all that are counted


@dataclass
class TrainingRecipe:
    """How a model learns. Shares are of the run, whether it is measured in steps or in minutes."""

    minutes: float | None = 30.0  # of the whole command, or of one stage that is run alone
    max_steps: int | None = None  # end after so many steps instead (reproducible on the same machine)
    seq_len: int = 256  # tokens a training sequence
    batch_size: int = 32  # sequences a batch
    accumulate: int = 1  # batches a step
    optimizer: Literal["muon", "adamw"] = "muon"  # of the blocks' matrices; the rest is AdamW's
    learning_rate: float = 4e-3  # AdamW's
    matrix_learning_rate: float = 0.02  # Muon's
    final_learning_rate: float = 0.02  # as a share of learning_rate, reached at the end
    warmup_share: float = 0.01
    warmdown_share: float = 0.7
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.97
    momentum: float = 0.95  # Muon's
    clip_norm: float = 1.0
    weight_bits: int = 8  # of the blocks' matrices when they are frozen, 2 to 8
    table_bits: int = 8  # likewise of the embedding and the head
    sparsity: float = 0.0  # share of zeros in them then: fewer bytes at rest, no less work
    quantised_share: float = 0.1  # last part of the run that simulates the integer graph
    patience: int = 0  # validations without progress before the run stops and goes back to its best; 0: never
    validations: int = 8  # a run, the last one at its end
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    compile: bool | None = None  # by torch.compile; null: where it works and the run is long
    checkpoint_activations: bool = False  # blocks keep their input alone and run again on the way back
    threads: int | None = None  # processor cores that all processes share; all of them where nothing is said
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1  # of a machine: as many processes, each with batches of its own
    nodes: int = 1  # machines; docs/cluster.md says how to start more than one
    strategy: Strategy = "auto"  # how they share a step; auto: ddp where there are several
    offload: bool = False  # fsdp and deepspeed: what is sharded stays in the memory of the processor
    timeout_minutes: float = 10.0  # after which a process that does not answer ends the others
    seed: int = 0

    @property
    def together(self) -> bool:
        """Whether processes train together, or one as if it were of several."""
        return self.devices * self.nodes > 1 or self.strategy != "auto"

    @property
    def shards(self) -> bool:
        """Whether the strategy cuts up what it trains."""
        return self.strategy not in ("auto", "ddp")

    @property
    def zero_stage(self) -> int:
        """What DeepSpeed shards: 1, 2 or 3; 0 without it."""
        return int(self.strategy[-1]) if self.strategy.startswith("deepspeed") else 0

    def clashes(self) -> list[str]:
        """Settings that exclude each other, one sentence each."""
        found: list[str] = []
        if self.minutes is None and self.max_steps is None:
            found.append("training.minutes and training.max_steps are both null: give one of them")
        if self.strategy == "fsdp" and self.devices * self.nodes == 1 and not self.offload:
            found.append(
                "training.strategy is fsdp, and one process has nothing to shard: set training.devices to "
                "more than 1, or training.strategy auto"
            )
        if self.optimizer == "muon" and self.shards:
            found.append(
                "training.optimizer is muon, which needs whole matrices, and training.strategy "
                f"{self.strategy} cuts them: set training.optimizer adamw, or training.strategy ddp"
            )
        if self.compile and self.shards:
            found.append(
                f"training.compile is true, and training.strategy {self.strategy} cuts up what is compiled: "
                "set training.compile null, or training.strategy ddp"
            )
        if self.offload and not self.shards:
            found.append(
                f"training.offload is true, and training.strategy {self.strategy} shards nothing: "
                "allowed are fsdp, deepspeed_1, deepspeed_2, deepspeed_3"
            )
        return found


@dataclass
class DistillationRecipe:
    """What teachers give the student; with teacher_share 0 and no teachers it learns from text alone."""

    teacher_share: float = 0.0  # of the minutes (or steps), for a teacher of the run's own
    teachers: list[str] = field(default_factory=list)  # checkpoints, or folders of runs, beside it
    weight: float = 0.5  # of the teachers' mean distribution in the loss; the rest goes to the true token
    temperature: float = 1.0
    top_k: int = 0  # tokens of that distribution that are cached before training; 0: all, and no cache
    hidden_weight: float = 0.0  # of the distance of the last rows, projected to a teacher's
    attention_weight: float = 0.0  # of the divergence of the last layer's attention
    final_weight: float = 1.0  # of all three weights at the end of the run, as a share of what they are

    @property
    def taught(self) -> bool:
        """Whether anybody teaches."""
        return bool(self.teacher_share or self.teachers)

    def clashes(self, training: TrainingRecipe, tokenizer: TokenizerRecipe) -> list[str]:
        """Settings that exclude each other, one sentence each."""
        found: list[str] = []
        if self.teachers and tokenizer.source is None:
            found.append(
                f"distillation.teachers is {self.teachers}, and the student has a tokenizer of its own: give "
                f"it theirs, --tokenizer.source {self.teachers[0]} as the run begins"
            )
        if self.taught and not (self.weight or self.hidden_weight or self.attention_weight):
            found.append(
                "distillation.weight, hidden_weight and attention_weight are 0, and there are teachers, of "
                "whom nothing would be learned: set one of them above 0, or leave the teachers out"
            )
        if len(set(self.teachers)) < len(self.teachers):
            found.append(f"distillation.teachers is {self.teachers}: name each teacher once")
        for name in ("hidden_weight", "attention_weight"):
            weight = getattr(self, name)
            if weight and self.top_k:
                found.append(
                    f"distillation.{name} is {weight:g}, which is not cached, and distillation.top_k is "
                    f"{self.top_k}: set one of them to 0"
                )
            if weight and training.shards:
                found.append(
                    f"distillation.{name} is {weight:g}, and training.strategy {training.strategy} cuts up "
                    "what it compares: set it to 0, or training.strategy to ddp"
                )
        if self.top_k and not self.weight:
            found.append(
                f"distillation.top_k is {self.top_k}, and distillation.weight is 0: set "
                "the first to 0, or the second above it"
            )
        return found


@dataclass
class AdaptationRecipe:
    """How a trained model learns new text and keeps the old: for `--from` alone."""

    replay_share: float = 0.25  # of each batch that is old text, where there is some
    anchor: float = 0.0  # pull towards the weights it came with, of lr times the distance a step (L2-SP)
    passes: int = 8  # over the new text, at most


def _teacher() -> ModelConfig:
    return ModelConfig(d_model=192, num_layers=4, num_heads=6, ffn_dim=768, window=128)


@dataclass
class Recipe:
    """All of a run."""

    name: str = "nano"
    kind: Literal["transformer", "ngram"] = "transformer"
    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    model: ModelConfig = field(default_factory=ModelConfig)
    teacher: ModelConfig = field(default_factory=_teacher)
    ngram: NgramRecipe = field(default_factory=NgramRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    distillation: DistillationRecipe = field(default_factory=DistillationRecipe)
    adaptation: AdaptationRecipe = field(default_factory=AdaptationRecipe)

    @property
    def replayed(self) -> int:
        """Sequences of a batch that are old text, where there is some."""
        return round(self.training.batch_size * self.adaptation.replay_share)

    def problems(self) -> list[str]:
        """Every value that cannot work, one sentence each."""
        t, d, n, a = self.training, self.data, self.distillation, self.adaptation
        found = [f"model.{fault}" for fault in self.model.problems()]
        found += [f"teacher.{fault}" for fault in self.teacher.problems()]
        checks: list[tuple[str, float, float, float]] = [
            ("training.seq_len", t.seq_len, 2, 65536),
            ("training.batch_size", t.batch_size, 1, 65536),
            ("training.accumulate", t.accumulate, 1, 65536),
            ("training.learning_rate", t.learning_rate, 1e-8, 1.0),
            ("training.matrix_learning_rate", t.matrix_learning_rate, 1e-8, 1.0),
            ("training.momentum", t.momentum, 0, 0.9999),
            ("training.final_learning_rate", t.final_learning_rate, 0, 1),
            ("training.warmup_share", t.warmup_share, 0, 0.5),
            ("training.warmdown_share", t.warmdown_share, 0, 1),
            ("training.weight_bits", t.weight_bits, 2, 8),
            ("training.table_bits", t.table_bits, 2, 8),
            ("training.sparsity", t.sparsity, 0, 0.9),
            ("training.quantised_share", t.quantised_share, 0, 1),
            ("training.clip_norm", t.clip_norm, 1e-6, 1e6),
            ("training.patience", t.patience, 0, 10**6),
            ("training.validations", t.validations, 1, 10**6),
            ("training.weight_decay", t.weight_decay, 0, 10),
            ("training.beta1", t.beta1, 0, 0.99999),
            ("training.beta2", t.beta2, 0, 0.99999),
            ("training.seed", t.seed, 0, 2**32 - 1),
            ("training.devices", t.devices, 1, 1024),
            ("training.nodes", t.nodes, 1, 65536),
            ("training.timeout_minutes", t.timeout_minutes, 0.05, 10_000),
            ("data.validation_share", d.validation_share, 1e-6, 0.5),
            ("data.test_share", d.test_share, 0, 0.5),
            ("data.train_share", d.train_share, 1e-6, 1),
            ("data.validation_tokens", d.validation_tokens, 1000, 10**12),
            ("data.shuffle_bytes", d.shuffle_bytes, 1000, 10**12),
            ("distillation.teacher_share", n.teacher_share, 0, 0.9),
            ("distillation.weight", n.weight, 0, 1),
            ("distillation.temperature", n.temperature, 0.1, 100),
            ("distillation.top_k", n.top_k, 0, 128),
            ("distillation.hidden_weight", n.hidden_weight, 0, 1000),
            ("distillation.attention_weight", n.attention_weight, 0, 1000),
            ("distillation.final_weight", n.final_weight, 0, 1),
            ("adaptation.replay_share", a.replay_share, 0, 0.9),
            ("adaptation.anchor", a.anchor, 0, 1000),
            ("adaptation.passes", a.passes, 1, 10**6),
            ("tokenizer.vocab_size", self.tokenizer.vocab_size, 256, 65536),
            ("tokenizer.sample_bytes", self.tokenizer.sample_bytes, 10_000, 10**11),
            ("ngram.order", self.ngram.order, *NgramConfig.LIMITS["order"]),
            ("ngram.min_count", self.ngram.min_count, 1, 255),
        ]
        if t.minutes is not None:
            checks.append(("training.minutes", t.minutes, 0.05, 10**6))
        if t.max_steps is not None:
            checks.append(("training.max_steps", t.max_steps, 1, 10**12))
        if self.ngram.max_bytes is not None:
            checks.append(("ngram.max_bytes", self.ngram.max_bytes, 1000, 3 * MOST_NODES))
        if t.threads is not None:
            checks.append(("training.threads", t.threads, 1, 4096))
        found += [
            f"{name} is {value:.12g}, allowed are {low:.12g} to {high:.12g}"
            for name, value, low, high in checks
            if not low <= value <= high
        ]
        found += t.clashes() + n.clashes(t, self.tokenizer)
        most = NgramConfig.LIMITS["vocab_size"][1]
        if self.kind == "ngram" and d.streaming:
            found.append("data.streaming is true, and n-grams are counted from shards: set it to false")
        if self.kind == "ngram" and self.training.together:
            found.append(
                "n-grams are counted in one process: leave training.devices, training.nodes and "
                "training.strategy as they are"
            )
        if d.streaming and self.distillation.top_k:
            found.append(
                f"data.streaming is true, and distillation.top_k is {self.distillation.top_k}, which caches "
                "predictions of shards: set data.streaming to false, or distillation.top_k to 0"
            )
        if d.streaming and d.train_share < 1:
            found.append(
                f"data.streaming is true, and data.train_share is {d.train_share:g}, which makes shards "
                "smaller: set data.streaming to false, or data.train_share to 1"
            )
        if self.kind == "ngram" and self.tokenizer.vocab_size > most:
            found.append(f"tokenizer.vocab_size is {self.tokenizer.vocab_size}, n-grams know at most {most}")
        if self.tokenizer.kind == "bytes" and self.tokenizer.vocab_size != 256:
            found.append(f"tokenizer.vocab_size is {self.tokenizer.vocab_size}, plain bytes need 256")
        return found
