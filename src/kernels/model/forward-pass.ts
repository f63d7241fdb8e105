/**
 * One model on one device: owns the device's buffers, binds the kernels, and records a step's forward pass. Knows
 * nothing of requests, scheduling or capture; the step runner that fills its `StepInput` does.
 *
 *     upload(input) ─► attend-write ─► attend ─► gate ─► route ─► sample ─► ballast
 *                      │ kvKeys        │ hidden  │ choices │ routedExperts   │ sampled, lastTokens
 *                      └ blockTable    └────────►┴────────►┴────────────────►┘
 *
 * Of a pipeline all stages but the first fold what they received into `hidden`, behind `attend`. Only the last samples.
 *
 * It is one command buffer, behind which capture adds itself. Gate and router take turns, a chunk of tokens at a time;
 * or the router makes its own logits. A monolithic router puts out the sums of the experts' work instead of ids, and
 * ids to `routing_replay_out` if it has it.
 */

import type { CaptureWorkerContext } from '../../contract/capture.ts';
import type { EngineConfig, ModelConfig, RouterConfig } from '../../contract/config.ts';
import type { BoundKernel, CommandRecorder, Device, DeviceBuffer, Kernel } from '../../contract/device.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { Ballast } from './ballast/calibrated-ballast.ts';
import type { GateKernel, KernelSet, KernelSetFactory, StepKernel, StepSizes } from './kernel-set.ts';
import type { KernelShape } from './kernel-shape.ts';
import { kernelShape, packedBytes } from './kernel-shape.ts';
import { routingReplayWords } from './routing-replay/routing-replay.ts';
import { MODULAR } from './route/engine-router.ts';
import { RouterShard, type ShardPlace } from './router-shard.ts';
import { SampledLayout } from './sample/sampled-layout.ts';
import type { StepInput } from './step-input.ts';
import { stepInputWords } from './step-input.ts';

export type ForwardPassOptions = Readonly<{
  model: ModelConfig;
  engine: EngineConfig;
  /** Milliseconds by which each pass is stretched on the device; 0 = none. */
  ballastMs: number;
  /** How likely a draft is right, in [0, 1]; absent = `DRAFT_ACCEPTANCE_RATE`. */
  draftAcceptanceRate?: number;
  /** Without, nothing is allocated for rows on their way to the host, and `rows` is `null` (L5); absent = with. */
  captures?: boolean;
  /** The router, a modular one, takes this shard of the rows alone; absent = all of them. */
  shard?: ShardPlace;
  kernels: KernelSetFactory;
  /** Absent: the pass is of all layers. `model` has those of the stage. */
  stage?: StageEnds;
}>;

/** What stands around a pipeline stage. */
export type StageEnds = Readonly<{
  /** Hidden states come from the stage before. */
  receives: boolean;
  /** Hidden states go to the stage behind, and nothing is sampled here. */
  sends: boolean;
}>;

const WHOLE: StageEnds = { receives: false, sends: false };

/** Where the rows of a pass can be had. */
export type RowSource = Pick<CaptureWorkerContext, 'routedExperts' | 'pack' | 'recordRows'>;

export class ForwardPass {
  readonly shape: KernelShape;
  readonly sampledLayout: SampledLayout;
  /** `[maxNumBatchedTokens, L, K]` u32 ids, written by a modular router; by a monolithic one never. */
  readonly routedExperts: DeviceBuffer;
  /** `[maxNumBatchedTokens, L]` u32, written by a monolithic router; by a modular one never. */
  readonly expertOutput: DeviceBuffer;
  /** `[maxNumBatchedTokens]` u32 KV slots, uploaded before the pass. */
  readonly slotMapping: DeviceBuffer;
  /** `[maxNumBatchedTokens, 4]` u32: the hidden state of each token, and the sums that it is made of. */
  readonly hidden: DeviceBuffer;
  /** `[numSlots, 2]` u32: the KV cache. Of a block the slots are neighbours. */
  readonly kvKeys: DeviceBuffer;
  /** One record per request, see sampled-layout.ts. Read back `sampledLayout.byteLength(numRequests)` bytes. */
  readonly sampled: DeviceBuffer;
  /** For capture. `null`: nothing captures, there is no router, or it writes no rows anywhere. */
  readonly rows: RowSource | null;
  readonly stage: StageEnds;
  /** `null`: the router takes all rows, and writes `routedExperts` itself. */
  readonly shard: RouterShard | null;

  readonly #device: Device;
  readonly #stepInput: DeviceBuffer;
  /** `[maxNumBatchedTokens, 2]` u32: hidden states that the stage before sent. */
  readonly #received: DeviceBuffer;
  readonly #owned: readonly DeviceBuffer[];
  readonly #steps: readonly BoundStep[];
  readonly #ballast: Ballast | null;

  private constructor(
    device: Device,
    { shape, buffers, owned, stage, shard }: Plan,
    steps: readonly BoundStep[],
    rows: RowSource | null,
    ballast: Ballast | null,
  ) {
    this.#device = device;
    this.shape = shape;
    this.stage = stage;
    this.sampledLayout = new SampledLayout(shape.numSpeculativeTokens);
    this.routedExperts = buffers.routedExperts;
    this.slotMapping = buffers.slotMapping;
    this.hidden = buffers.hidden;
    this.kvKeys = buffers.kvKeys;
    this.sampled = buffers.sampled;
    this.expertOutput = buffers.expertOutput;
    this.rows = rows;
    this.shard = shard;
    this.#stepInput = buffers.stepInput;
    this.#received = buffers.received;
    this.#owned = owned;
    this.#steps = steps;
    this.#ballast = ballast;
  }

  /** Throws `BAD_VALUE` for a shape that kernels or device cannot hold. */
  static async create(device: Device, options: ForwardPassOptions): Promise<ForwardPass> {
    const { ballastMs } = options;
    if (!(ballastMs >= 0)) throw RoutedExpertsError.of('BAD_VALUE', 'ballastMs', ballastMs, 'milliseconds ≥ 0');
    if (ballastMs > 0 && device.info.kind === 'clock') {
      throw RoutedExpertsError.of(
        'BAD_VALUE',
        'ballastMs',
        ballastMs,
        '0 with device clock, which has a step time instead',
      );
    }
    const plan = prepare(device, options);
    const { kernels, planned, forRows } = plan;
    const bind = ({ kernel, bindTo }: Planned): Promise<BoundKernel> => device.bind(kernel, bindTo);
    const [bound, rowKernels] = await Promise.all([Promise.all(planned.map(bind)), Promise.all(forRows.map(bind))]);
    const ballast = ballastMs > 0 ? await Ballast.create(device, kernels.ballast, ballastMs) : null;
    const steps = planned.map((step, i) => ({ ...step, bound: bound[i]! }));
    return new ForwardPass(device, plan, steps, rowsOf(plan, rowKernels), ballast);
  }

  /** `create` without promises and ballast, for a device that binds at once. */
  static assemble(
    device: Device & Readonly<{ bindNow: (kernel: Kernel, buffers: readonly DeviceBuffer[]) => BoundKernel }>,
    options: Omit<ForwardPassOptions, 'ballastMs'>,
  ): ForwardPass {
    const plan = prepare(device, options);
    const bind = ({ kernel, bindTo }: Planned): BoundKernel => device.bindNow(kernel, bindTo);
    const steps = plan.planned.map((step) => ({ ...step, bound: bind(step) }));
    return new ForwardPass(device, plan, steps, rowsOf(plan, plan.forRows.map(bind)), null);
  }

  /**
   * Sends a step's input, `end`ed, to the device. It is taken before this returns: the object can be refilled for the
   * next step.
   */
  upload(input: StepInput): void {
    this.#device.write(this.#stepInput, 0, input.words.subarray(0, input.numWords));
    this.#device.write(this.slotMapping, 0, input.slotMapping.subarray(0, input.numTokens));
    this.shard?.upload(input);
  }

  /** Sends the hidden states of a step, `[numTokens, 2]`, as the stage before made them. Taken before this returns. */
  receive(hidden: Uint32Array): void {
    this.#device.write(this.#received, 0, hidden);
  }

  /**
   * Records the pass over what was uploaded last. `sizes`: the `StepInput` itself will do. `ownTokens`: without those
   * that only the router sees.
   */
  record(commands: CommandRecorder, sizes: StepSizes, ownTokens: number = sizes.numTokens): void {
    commands.beginPass?.(ownTokens);
    let hasShard = false;
    for (const { bound, grid, chunk, routes } of this.#steps) {
      const shard = routes ? this.shard : null;
      if (shard !== null && !hasShard) shard.record(commands, this.hidden, sizes.numTokens);
      hasShard ||= shard !== null;
      const numRows = shard?.rowsOf(sizes.numTokens) ?? sizes.numTokens;
      const numTokens = chunk === null ? numRows : Math.min(chunk.size, numRows - chunk.start);
      if (chunk !== null && numTokens <= 0) continue;
      const [x, y] = grid(numTokens === sizes.numTokens ? sizes : { ...sizes, numTokens });
      commands.dispatch(bound, x, y);
    }
    this.#ballast?.record(commands);
  }

  destroy(): void {
    for (const buffer of this.#owned) buffer.destroy();
    this.#ballast?.destroy();
  }
}

/** A kernel with what it is bound to. */
type Planned = Readonly<{ kernel: Kernel; bindTo: readonly DeviceBuffer[] }>;

/** Tokens of a step that a kernel takes: at most `size` from `start` on; `null` = all. */
type Chunk = Readonly<{ start: number; size: number }> | null;

/** `routes`: it is of gate or router. */
type PlannedStep = Planned & Readonly<{ grid: StepKernel['grid']; chunk: Chunk; routes: boolean }>;

/** `planned`: the kernels of a pass, in their order. `forRows`: `pack` and `expand`, as far as there are rows. */
type Plan = Readonly<{
  stage: StageEnds;
  shape: KernelShape;
  kernels: KernelSet;
  buffers: StepBuffers;
  /** `null`: see `ForwardPass.rows`. */
  rowBuffers: RowBuffers | null;
  shard: RouterShard | null;
  owned: readonly DeviceBuffer[];
  planned: readonly PlannedStep[];
  forRows: readonly Planned[];
}>;

function prepare(device: Device, options: Omit<ForwardPassOptions, 'ballastMs'>): Plan {
  const { model, engine, draftAcceptanceRate, captures = true, kernels: factory, stage = WHOLE } = options;
  const shape = kernelShape(model, engine, draftAcceptanceRate);
  const kernels = factory(model, shape, device.info);
  const weights = kernels.gateWeights();
  const router = kernels.router ?? MODULAR;
  const b = createBuffers(device, { shape, router, stage, weightWords: weights.length });
  device.write(b.gateWeights, 0, weights);
  const sampleBuffers = [b.stepInput, b.hidden, b.sampled, b.lastTokens];
  // A sampler that replays a recording reads it where the router does.
  if (kernels.sample.kernel.bindings.length > sampleBuffers.length) sampleBuffers.push(b.gateWeights);
  const hasRouter = shape.numLayers > 0;
  const shard = options.shard === undefined ? null : new RouterShard(device, shape, options.shard);
  const { stepInput, hidden, routedExperts } = shard ?? b;
  const seen = { ...b, stepInput, hidden, routedExperts };
  const fusedBuffers = [seen.stepInput, seen.hidden, b.gateWeights, ...routerOutputs(router, seen)];
  const routing = !hasRouter
    ? { planned: [], owned: [] }
    : kernels.gate
      ? planChunks(device, kernels.gate, kernels.route, shape, seen)
      : { planned: [{ ...wholeStep(kernels.route, fusedBuffers), routes: true }], owned: [] };
  const planned = [
    wholeStep(kernels.attendWrite, [b.stepInput, b.slotMapping, b.lastTokens, b.kvKeys, b.blockTable]),
    wholeStep(kernels.attend, [b.stepInput, b.kvKeys, b.blockTable, b.hidden]),
    ...(stage.receives ? [wholeStep(kernels.fold, [b.stepInput, b.received, b.hidden])] : []),
    ...routing.planned,
    ...(stage.sends ? [] : [wholeStep(kernels.sample, sampleBuffers)]),
  ];
  const hasRows = captures && hasRouter && (router.kind === 'modular' || Boolean(kernels.expand));
  const rowBuffers = hasRows ? createRowBuffers(device, model, shape, router) : null;
  const owned = [...Object.values(b), ...routing.owned, ...Object.values(rowBuffers ?? {}), ...(shard?.buffers ?? [])];
  const forRows = rowBuffers === null ? [] : plannedForRows(kernels, b, rowBuffers);
  return { stage, shape, kernels, buffers: b, rowBuffers, shard, owned, planned, forRows };
}

/** `pack`; and `expand`, of a monolithic router. */
function plannedForRows(
  { pack, expand }: KernelSet,
  b: StepBuffers,
  { packRows, packed, expandedRows }: RowBuffers,
): Planned[] {
  if (!expand) return [{ kernel: pack, bindTo: [b.routedExperts, packRows, packed] }];
  return [
    { kernel: pack, bindTo: [b.routingReplayOut, packRows, packed] },
    { kernel: expand.kernel, bindTo: [b.routingReplayOut, b.stepInput, expandedRows] },
  ];
}

/** A kernel that takes all of a step. */
function wholeStep({ kernel, grid }: StepKernel, bindTo: readonly DeviceBuffer[]): PlannedStep {
  return { kernel, grid, bindTo, chunk: null, routes: false };
}

/** Gate and router for each chunk of the largest step. All chunks share the memory of their choices. */
function planChunks(
  device: Device,
  gate: GateKernel,
  route: StepKernel,
  shape: KernelShape,
  b: StepBuffers,
): Readonly<{ planned: readonly PlannedStep[]; owned: readonly DeviceBuffer[] }> {
  const { numLayers, numExperts, maxNumBatchedTokens } = shape;
  const size = gate.chunkTokens;
  const choices = device.createBuffer('choices', 4 * size * numLayers * numExperts, 'storage');
  const planned: PlannedStep[] = [];
  const owned = [choices];
  for (let start = 0; start < maxNumBatchedTokens; start += size) {
    const params = device.createBuffer('routerParams', 8, 'storage');
    device.write(params, 0, Uint32Array.of(0, start * numLayers));
    owned.push(params);
    const part = { chunk: { start, size }, routes: true };
    const gateBuffers = [b.stepInput, b.hidden, b.gateWeights, params, choices];
    planned.push({ kernel: gate.kernel, grid: gate.grid, bindTo: gateBuffers, ...part });
    planned.push({ kernel: route.kernel, grid: route.grid, bindTo: [params, choices, b.routedExperts], ...part });
  }
  return { planned, owned };
}

function routerOutputs(router: RouterConfig, b: StepBuffers): DeviceBuffer[] {
  if (router.kind === 'modular') return [b.routedExperts];
  return router.hasRoutingReplay ? [b.expertOutput, b.routingReplayOut] : [b.expertOutput];
}

/** A design reads ids where the router writes them: packed straight from there, or, whole, as a modular router's. */
function rowsOf({ kernels, buffers, rowBuffers }: Plan, bound: readonly BoundKernel[]): RowSource | null {
  if (rowBuffers === null) return null;
  const [packBound, expandBound] = bound;
  const pack = { bound: packBound!, rows: rowBuffers.packRows, packed: rowBuffers.packed };
  const { expand } = kernels;
  if (!expand) return { routedExperts: buffers.routedExperts, pack };
  return {
    routedExperts: rowBuffers.expandedRows,
    pack,
    recordRows: (commands, numTokens) => {
      const [x, y] = expand.grid({ numTokens, numRequests: 0, numTableUpdates: 0 });
      commands.dispatch(expandBound!, x, y);
    },
  };
}

type BoundStep = PlannedStep & Readonly<{ bound: BoundKernel }>;

type StepBuffers = ReturnType<typeof createBuffers>;
type RowBuffers = ReturnType<typeof createRowBuffers>;

/** Words of a buffer that this router never touches. */
const UNUSED = 1;

function createBuffers(
  device: Device,
  { shape, router, stage, weightWords }: Pick<Plan, 'shape' | 'stage'> & { router: RouterConfig; weightWords: number },
) {
  const storage = (label: string, words: number): DeviceBuffer =>
    device.createBuffer(label, 4 * Math.max(UNUSED, words), 'storage');
  const { maxNumBatchedTokens, maxNumSeqs, numLayers, topK } = shape;
  const isMonolithic = router.kind === 'monolithic';
  const hasReplay = isMonolithic && router.hasRoutingReplay;
  return {
    stepInput: storage('stepInput', stepInputWords(shape)),
    slotMapping: storage('slotMapping', maxNumBatchedTokens),
    lastTokens: storage('lastTokens', maxNumSeqs * (1 + shape.numSpeculativeTokens)),
    kvKeys: storage('kvKeys', 2 * shape.numSlots),
    blockTable: storage('blockTable', maxNumSeqs * shape.maxBlocksPerSeq),
    hidden: storage('hidden', 4 * maxNumBatchedTokens),
    received: storage('received', stage.receives ? 2 * maxNumBatchedTokens : UNUSED),
    gateWeights: storage('gateWeights', weightWords),
    routedExperts: storage('routedExperts', maxNumBatchedTokens * numLayers * topK),
    expertOutput: storage('expertOutput', isMonolithic ? maxNumBatchedTokens * numLayers : UNUSED),
    routingReplayOut: storage('routingReplayOut', hasReplay ? routingReplayWords(shape, maxNumBatchedTokens) : UNUSED),
    sampled: storage('sampled', maxNumSeqs * new SampledLayout(shape.numSpeculativeTokens).stride),
  };
}

/** For rows on their way from the router to the host. */
function createRowBuffers(device: Device, model: ModelConfig, shape: KernelShape, router: RouterConfig) {
  const storage = (label: string, words: number): DeviceBuffer => device.createBuffer(label, 4 * words, 'storage');
  const { maxNumBatchedTokens, numLayers, topK } = shape;
  const isExpanded = router.kind === 'monolithic';
  return {
    packRows: storage('packRows', 1 + maxNumBatchedTokens),
    packed: storage('packed', packedBytes(model, maxNumBatchedTokens) / 4),
    expandedRows: storage('expandedRows', isExpanded ? maxNumBatchedTokens * numLayers * topK : UNUSED),
  };
}
