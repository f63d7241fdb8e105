/** Configuration that crosses a boundary: of the engine core, of the model, of a worker. */

import type { Routing } from './recorded-routing.ts';

/** Which request goes first: the one that came first, or the one with the smallest `priority`. */
export type SchedulingPolicy = 'fcfs' | 'priority';

/**
 * The scheduler's settings, under vLLM's names where it has them. All sizes are in tokens unless a line says otherwise.
 */
export type EngineConfig = Readonly<{
  /** Tokens per KV block. */
  blockSize: number;
  /** KV blocks, block 0 (the null block) included: `numBlocks - 1` are usable. */
  numBlocks: number;
  /** Requests that may run at once. */
  maxNumSeqs: number;
  /** Token budget of one step. */
  maxNumBatchedTokens: number;
  /** Prompt and output together. */
  maxModelLen: number;
  policy: SchedulingPolicy;
  /** Schedule a step before the output of the one before it has arrived. */
  asyncScheduling: boolean;
  enablePrefixCaching: boolean;
  enableChunkedPrefill: boolean;
  /** The most tokens of one prompt that one step may take; 0 = no limit. */
  longPrefillTokenThreshold: number;
  /** Admit a request only if its whole prompt fits the free blocks (`scheduler_reserve_full_isl`). */
  reserveFullIsl: boolean;
  /** Share of the pool, in [0, 1), that admission leaves free. */
  watermark: number;
  /** Draft tokens per request and step; 0 = no speculative decoding. */
  numSpeculativeTokens: number;
  /**
   * Stages that the workers are split into; absent = 1. With more the scheduler is synchronous, without drafts, and
   * each step brings the tokens that were sampled before it, since only the last stage knows them.
   */
  pipelineParallelSize?: number;
}>;

/**
 * What a router compares. `identity` (the logit itself), `softmax`, `sigmoid` and `sqrt-softplus` score all experts,
 * `topk-…` and `sparsemixer` only those that were chosen by logit.
 */
export type RouterScoring =
  'identity' | 'softmax' | 'sigmoid' | 'sqrt-softplus' | 'topk-softmax' | 'topk-sigmoid' | 'sparsemixer';

/**
 * Experts `[g · E / count, (g + 1) · E / count)` are group g. Only the experts of the `keep` best groups can be chosen;
 * a group is as good as its best expert, or its best two together.
 */
export type ExpertGroups = Readonly<{ count: number; keep: number; score: 'max' | 'top2-sum' }>;

/**
 * How a published model chooses experts and weighs them, on given logits: score → choice → [groups] → K best → weights.
 * Canonical form and models: docs/router-kernels.md.
 */
export type RoutingFunction = Readonly<{
  /** E. */
  numExperts: number;
  /** K. */
  topK: number;
  scoring: RouterScoring;
  /** c of `c · tanh(logit / c)`, applied before scoring; 0 = none. */
  softCap: number;
  /** Each expert's score is raised by a bias of its own, an f32, for selection only. */
  hasSelectionBias: boolean;
  groups: ExpertGroups | null;
  /** Weights are divided by `max(Σ + epsilon, minDenominator)`. */
  renormalize: boolean;
  epsilon: number;
  minDenominator: number;
  /** Factor of every weight. */
  scale: number;
  /** ε of the sparse mixer; without meaning elsewhere. */
  jitter: number;
}>;

/**
 * The shape of a mixture-of-experts model as far as routing shows it.
 * `numLayers` counts the layers that have a router: dense layers have no row of their own.
 */
export type ModelConfig = Readonly<{
  name: string;
  /** L: layers with a router. */
  numLayers: number;
  /**
   * The model's layers without a router, ascending: the model has `numLayers` layers and these. Absent: it has none.
   */
  denseLayers?: readonly number[];
  /** Of a pipeline stage: how many layers with a router stand in the stages before it. Absent = 0. */
  firstLayer?: number;
  /** E: experts a router chooses from. */
  numExperts: number;
  /** K: experts a token is sent to. */
  topK: number;
  vocabSize: number;
  /** Width of the integer gate: multiplications per logit. A stand-in for the hidden size, which shapes no row. */
  gateWidth: number;
  /** What the routing function has beside E and K. Absent: plain top-k of the logits. Weights show in no row. */
  routingFunction?: Partial<Omit<RoutingFunction, 'numExperts' | 'topK'>>;
}>;

/**
 * `modular`: selection is a kernel of its own, and the capture hook reads the ids that it writes. `monolithic`: gate,
 * selection and expert work are one kernel, and no hook runs behind it: rows exist only if it is given the output
 * `routing_replay_out`.
 */
export type RouterConfig =
  | Readonly<{
      kind: 'modular';
      /** Absent = `auto`. */
      kernels?: RouterKernels;
    }>
  | Readonly<{ kind: 'monolithic'; hasRoutingReplay: boolean }>;

/**
 * `fused`: one kernel that makes its own logits. `gated`: a gate writes choices, and the router kernels that `kernels
 * bench` measures select from them. `auto`: what the device and the model suggest. Rows are equal in all of them.
 */
export type RouterKernels = 'auto' | 'fused' | 'gated';

/**
 * Element type of a row on its way to the user: `uint8` holds ids of up to 256 experts, `uint16` of up to 65,536. Only
 * `shm-flock`, true to its source, stores and hands out `int32`.
 */
export type RowDtype = 'uint8' | 'uint16' | 'int32';

/**
 * Which layers the rows count that a caller gets: `routers`, those that have one, or `all` of the model's, as vLLM and
 * SGLang return them. Dense layers are zeros then.
 */
export type RowsLayers = 'routers' | 'all';

/** The designs of `capture/designs.ts`. */
export type DesignName = 'off' | 'shm-flock' | 'deltas' | 'host-cache' | 'slot-store' | 'block-store';

/**
 * How a design is named where functions cannot go: a built-in one by its name, one of the caller's own by the URL of
 * the module that exports it, which each thread imports itself.
 */
export type DesignReference = DesignName | `file:${string}`;

/** What `deltas` does with the rows of prefix-cached tokens; `capture/deltas/prefix-rows.ts` has the table. */
export type PrefixRows = 'complete' | 'share' | 'recompute' | 'computed-only';

/**
 * `webgpu`: an adapter. `cpu`: the TypeScript reference kernels, as fast as they are. `clock`: the same kernels, and
 * answers that come when a modelled GPU would have them.
 */
export type DeviceKind = 'webgpu' | 'cpu' | 'clock';

/** What each thing takes on a `clock` device: a step, each of its tokens more, a copy to the host. */
export type ClockTimes = Readonly<{ stepMs: number; perTokenUs: number; copyLatencyMs: number; copyGBPerS: number }>;

/**
 * What `shm-flock` does, for the experiments of RFC vllm#38079. `save`: the worker writes the rows of every step to
 * shared memory. `read`: the scheduler reads those of every request that stops. With either off the hook still writes
 * its buffer in every step, and every row is reported missing.
 */
export type ShmFlockSwitches = Readonly<{ save: boolean; read: boolean }>;

/**
 * A fault in a worker: its device is lost; its thread ends; nothing catches an exception or a rejection; the thread
 * stands still. One of the moments says when.
 */
export type WorkerFault = Readonly<{
  kind: 'lose-device' | 'exit-thread' | 'throw' | 'reject' | 'hang';
  /** Absent = 0. */
  rank?: number;
  /** When this step arrives. */
  stepId?: number;
  /** When the next step after `afterSteps` more arrives. */
  afterSteps?: number;
  /** When KV is read or written the next time after `afterKvMoves` more. */
  afterKvMoves?: number;
  /** After this time, whatever the worker does then, also if it is idle. */
  afterMs?: number;
  /** In shared memory: a hang ends when word 0 is set and notified. */
  release?: Int32Array<SharedArrayBuffer>;
}>;

/**
 * Ranks whose forward passes end together, as the experts' all-to-all makes them. `memory` is where they meet
 * (`LockstepGroup`); a rank that waits there for longer than `collectiveTimeoutMs` ends the group. Ranks are numbered
 * over all engines (`RankGrid`), of which the worker's is number `engine`.
 */
export type LockstepConfig = Readonly<{
  memory: SharedArrayBuffer;
  numEngines: number;
  engine: number;
  /** In ms since the Unix epoch: the zero of the times in `memory`. */
  startedAt: number;
  collectiveTimeoutMs: number;
  /** Absent: `modular`. */
  dispatch?: Dispatch;
  /** Of `modular-shards`: the most rows that a rank routes alone, `[rows, L, K]` words. Absent = 0. */
  shardWords?: number;
}>;

/**
 * What the router of a data-parallel rank sees, and with it the capture hook: its own rows (`modular`), those of all
 * engines (`naive`), or those of all engines with each engine's padded to shards of its tensor-parallel ranks
 * (`naive-shards`, under sequence parallelism). Or each tensor-parallel rank routes a shard of its engine's rows alone
 * (`modular-shards`, sequence parallelism with a modular kernel): an all-gather brings them together.
 */
export type Dispatch = 'modular' | 'naive' | 'naive-shards' | 'modular-shards';

/**
 * Ranks that each have some of the model's layers, in a row. `split`: layers of each stage, dense ones included.
 * `links`: where a stage leaves hidden states for the next (`StageLinks`).
 */
export type PipelineConfig = Readonly<{ split: readonly number[]; links: SharedArrayBuffer }>;

/** What a worker thread is told when it starts. Structured-cloneable. */
export type WorkerConfig = Readonly<{
  /** Among those of its engine. */
  rank: number;
  /** Of its engine. */
  numRanks: number;
  model: ModelConfig;
  engine: EngineConfig;
  design: DesignReference;
  device: DeviceKind;
  /** Part of an adapter's name, or `null` for the best one there is. */
  adapter: string | null;
  /** Of a `clock` device; absent = `DEFAULT_CLOCK_TIMES`. */
  clockTimes?: ClockTimes;
  /** Steps that may be in flight at once. */
  queueDepth: number;
  /** Milliseconds by which the device stretches each forward pass; 0 = none. */
  ballastMs: number;
  /** How likely a draft is right, in [0, 1]; absent = 0.7. */
  draftAcceptanceRate?: number;
  /** POSIX shared memory object and lock file of `shm-flock`; `null` for every other design. */
  sharedMemory: Readonly<{ name: string; lockFile: string }> | null;
  /** Absent = both on. */
  shmFlock?: ShmFlockSwitches;
  /** Absent: the ranks run each at its own pace. */
  lockstep?: LockstepConfig;
  /** Absent: each rank has all layers. */
  pipeline?: PipelineConfig;
  /** Fault to inject, `null` = none. */
  fault: WorkerFault | null;
  /** Absent = deterministic. */
  routing?: Routing;
  /** Absent = modular. */
  router?: RouterConfig;
}>;
