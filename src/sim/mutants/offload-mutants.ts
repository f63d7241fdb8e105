/** Defects of KV that is kept outside the device, as patches of the tier and of what is around it. */

import type { CaptureEngineHalf } from '../../contract/capture.ts';
import type { EngineConfig } from '../../contract/config.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { KvTier } from '../../handover/tier/kv-tier.ts';
import { TierBlock, type TierRows } from '../../handover/tier/tier-block.ts';
import { Storm } from '../storm.ts';
import { VirtualRank, type KvTask } from '../virtual/virtual-rank.ts';
import { DelegatingEngineHalf } from './delegates.ts';
import type { Mutant } from './mutant.ts';

/** Rows of a block that comes back are those that came with the block before it in the same place of the device. */
class KeepsRowsBySlot extends DelegatingEngineHalf {
  readonly #blockSize: number;
  readonly #before: Map<number, RoutedRows['chunks'][number]> = new Map();

  constructor(half: CaptureEngineHalf, { blockSize }: EngineConfig) {
    super(half);
    this.#blockSize = blockSize;
  }

  override onExternalKv(request: CaptureRequest, from: number, to: number, rows: RoutedRows | null): void {
    super.onExternalKv(
      request,
      from,
      to,
      rows === null ? null : { ...rows, chunks: this.#chunks(request, from, rows) },
    );
  }

  #chunks({ blockIds }: CaptureRequest, from: number, { chunks }: RoutedRows): RoutedRows['chunks'] {
    return chunks.map((chunk, i) => {
      const blockId = blockIds[from / this.#blockSize + i]!;
      const before = this.#before.get(blockId) ?? chunk;
      this.#before.set(blockId, chunk);
      return chunk === null ? null : before;
    });
  }
}

/** Equal tokens, equal rows: those of the first block with the hash serve for all. */
function installRowsByHash(): () => void {
  const { settleRows } = TierBlock.prototype;
  const first = new Map<string, TierRows>();
  TierBlock.prototype.settleRows = function settle(this: TierBlock) {
    const bytes = settleRows.call(this);
    if (this.rows === null) return bytes;
    const known = first.get(this.hash);
    if (known === undefined) first.set(this.hash, this.rows);
    else if (known.offset <= this.rows.offset) this.rows = known;
    return bytes;
  };
  return () => {
    TierBlock.prototype.settleRows = settleRows;
  };
}

/** The memory that a copy goes to is taken for the copy. */
function installBelievedTooEarly(): () => void {
  const { handKv } = Storm.prototype;
  Storm.prototype.handKv = function hand(this: Storm, task: KvTask) {
    handKv.call(this, task);
    if (task.kind === 'read-kv') task.onRead(new Uint32Array(task.blockIds.length * 256));
  };
  return () => {
    Storm.prototype.handKv = handKv;
  };
}

/** A read goes to the device past the steps that are on their way to it. */
function installOvertakingRead(): () => void {
  const { handKv } = Storm.prototype;
  const { accept } = VirtualRank.prototype;
  const firstRanks: VirtualRank[] = [];
  VirtualRank.prototype.accept = function note(this: VirtualRank, flight) {
    if (this.number === 0) firstRanks[0] = this;
    accept.call(this, flight);
  };
  Storm.prototype.handKv = function hand(this: Storm, task: KvTask) {
    const [first] = firstRanks;
    if (task.kind === 'read-kv' && first?.isDead === false) first.acceptKv(task);
    else handKv.call(this, task);
  };
  return () => {
    VirtualRank.prototype.accept = accept;
    Storm.prototype.handKv = handKv;
  };
}

/** A read waits for the next step, which overwrites what it is to read. */
function installLateRead(): () => void {
  const { accept, acceptKv } = VirtualRank.prototype;
  const held = new Map<VirtualRank, KvTask[]>();
  VirtualRank.prototype.acceptKv = function hold(this: VirtualRank, task) {
    if (task.kind === 'read-kv') held.set(this, [...(held.get(this) ?? []), task]);
    else acceptKv.call(this, task);
  };
  VirtualRank.prototype.accept = function acceptFirst(this: VirtualRank, flight) {
    accept.call(this, flight);
    for (const task of held.get(this) ?? []) acceptKv.call(this, task);
    held.delete(this);
  };
  return () => {
    Object.assign(VirtualRank.prototype, { accept, acceptKv });
  };
}

function installLoadsThatOutliveWorkers(): () => void {
  const { onWorkersLost } = KvTier.prototype;
  KvTier.prototype.onWorkersLost = () => undefined;
  return () => {
    KvTier.prototype.onWorkersLost = onWorkersLost;
  };
}

function installTierThatOutlivesReset(): () => void {
  const { onCacheReset } = KvTier.prototype;
  KvTier.prototype.onCacheReset = () => undefined;
  return () => {
    KvTier.prototype.onCacheReset = onCacheReset;
  };
}

export const offloadMutants: readonly Mutant[] = [
  {
    number: 110,
    name: 'stale-row-after-offload',
    defect: 'a block comes back from host memory, and its rows are those of the block that was in its place before',
    source: 'vllm#39568 (review): what its refusal of CPU offloading is for',
    base: 'deltas',
    mutation: { inOffload: true, engineHalf: (half, _model, engine) => new KeepsRowsBySlot(half, engine) },
  },
  {
    number: 111,
    name: 'rows-of-another-generation',
    defect: 'a block that comes back has the rows of another block with its hash',
    source: 'vllm#45635 (the first publication of a hash counts)',
    base: 'deltas',
    mutation: { inOffload: true, install: installRowsByHash },
  },
  {
    number: 112,
    name: 'believed-too-early',
    defect: 'a block is believed before its copy has come',
    source: 'TensorRT-LLM#18397 (review: a wait on the wrong stream)',
    base: 'deltas',
    mutation: { inOffload: true, install: installBelievedTooEarly },
  },
  {
    number: 113,
    name: 'overtaking-read',
    defect: 'an evicted block is read before the step that writes it has run',
    source: 'copies on a stream of their own, without a wait for the compute stream',
    base: 'deltas',
    mutation: { inOffload: true, install: installOvertakingRead },
  },
  {
    number: 114,
    name: 'late-read',
    defect: 'an evicted block is read behind the step that gives it other tokens',
    source: 'copies on a stream of their own, for which the compute stream does not wait',
    base: 'deltas',
    mutation: { inOffload: true, install: installLateRead },
  },
  {
    number: 115,
    name: 'tier-load-outlives-workers',
    defect: 'a load from host memory that began before a restart is finished after it',
    source: 'number 61 without a prefill engine',
    base: 'deltas',
    mutation: { inOffload: true, install: installLoadsThatOutliveWorkers },
  },
  {
    number: 116,
    name: 'tier-outlives-reset',
    defect: 'a reset of the prefix cache leaves the blocks outside the device',
    source: 'vLLM’s reset_prefix_cache without reset_connector',
    base: 'deltas',
    mutation: { inOffload: true, install: installTierThatOutlivesReset },
  },
];
