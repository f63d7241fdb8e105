/**
 * The prefill side of a hand-over: keeps blocks of ended requests until they were read and released, or their lease is
 * over.
 */

import type { KvConnector } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { Mark } from '../coverage.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { Storm } from '../storm.ts';
import type { LoadedKv } from '../laws/tracked-request.ts';
import type { World } from '../world.ts';
import type { PdScenario } from './pd-scenario.ts';

export type Kept = {
  readonly requestIndex: number;
  readonly blockIds: readonly number[];
  /** Tokens from the front whose KV stands: the last sampled one was never an input. */
  readonly numTokens: number;
  /** Of all those tokens that the request wants rows of, or `null`. */
  rows: RoutedRows | null;
  numReaders: number;
  /** Released or expired: nobody may begin to read. */
  isOver: boolean;
};

/** KV on its way: the keys as the device gave them, what the ledger knows of them, and the rows of the request. */
export type KvAnswer = Readonly<{ keys: Uint32Array; kv: LoadedKv; rows: RoutedRows | null }>;

type Read = Readonly<{ answer: (answer: KvAnswer | null) => void }>;

export class KvKeeper implements KvConnector {
  readonly #clock: Clock;
  readonly #leaseTicks: number;
  readonly #readTicks: number;
  readonly #marks: Set<Mark>;
  readonly #kept: Map<string, Kept> = new Map();
  readonly #reads: Set<Read> = new Set();
  /** Since the start. Ranks are read in turn: all must have the same KV. */
  #numReads = 0;
  #world: World | null = null;
  #storm: Storm | null = null;

  constructor(clock: Clock, { leaseTicks, readTicks = 0 }: PdScenario, marks: Set<Mark>) {
    this.#clock = clock;
    this.#leaseTicks = leaseTicks;
    this.#readTicks = readTicks;
    this.#marks = marks;
  }

  attach(world: World, storm: Storm): void {
    this.#world = world;
    this.#storm = storm;
  }

  get numKept(): number {
    return this.#kept.size;
  }

  get(requestId: string): Kept | null {
    return this.#kept.get(requestId) ?? null;
  }

  externalKv(): null {
    return null;
  }

  startLoad(): void {}

  keepsBlocks(request: CaptureRequest): boolean {
    const { blockSize } = this.#world!.scenario.engine;
    const numTokens = Math.min(request.numTokens - 1, request.numPromptTokens);
    const blockIds = request.blockIds.slice(0, Math.ceil(numTokens / blockSize));
    const kept: Kept = { requestIndex: request.index, blockIds, numTokens, rows: null, numReaders: 0, isOver: false };
    const { requestId } = request;
    this.#kept.set(requestId, kept);
    this.#clock.plan(this.#clock.now + this.#leaseTicks, Phase.client, () => {
      if (this.#kept.get(requestId) === kept) this.release(requestId);
    });
    this.#world!.onKept(request.index);
    return true;
  }

  /**
   * Reads the blocks of `[from, to)`, in turn with the engine's steps. The answer is `null` if they are gone, or go
   * meanwhile.
   */
  read(requestId: string, from: number, to: number, answer: Read['answer']): void {
    const kept = this.#kept.get(requestId);
    if (kept === undefined || kept.isOver || to > kept.numTokens) {
      this.#marks.add('lease over before the KV was read');
      answer(null);
      return;
    }
    const read: Read = { answer };
    this.#reads.add(read);
    kept.numReaders += 1;
    const begin = (): void => {
      if (this.#reads.has(read)) this.#readBlocks(requestId, kept, read, from, to);
    };
    if (this.#readTicks === 0) begin();
    else this.#clock.plan(this.#clock.now + this.#readTicks, Phase.client, begin);
  }

  #readBlocks(requestId: string, kept: Kept, read: Read, from: number, to: number): void {
    const world = this.#world!;
    const { engine, numRanks } = world.scenario;
    const { blockSize } = engine;
    const rank = this.#numReads % numRanks;
    this.#numReads += 1;
    if (rank > 0) this.#marks.add('KV read from another rank than the first');
    if (kept.isOver) this.#marks.add('kept blocks released before they were read');
    let kv: LoadedKv | null = null;
    this.#storm!.handKv({
      kind: 'read-kv',
      rank,
      blockIds: Uint32Array.from(kept.blockIds.slice(from / blockSize, Math.ceil(to / blockSize))),
      onExecuted: () => {
        kv = world.ledger.readKv(world.request(kept.requestIndex), kept.blockIds, from, to);
      },
      onRead: (keys) => {
        if (!this.#reads.delete(read)) return;
        kept.numReaders -= 1;
        this.#settle(requestId, kept);
        read.answer({ keys, kv: kv!, rows: kept.rows });
      },
    });
  }

  /** Unknown ids are ignored: a lease may have run out before. */
  release(requestId: string): void {
    const kept = this.#kept.get(requestId);
    if (kept === undefined) return;
    kept.isOver = true;
    this.#settle(requestId, kept);
  }

  /** The blocks are gone with their device; whoever reads notices that its connection is closed. */
  onWorkersLost(): void {
    this.#kept.clear();
    if (this.#reads.size > 0) this.#marks.add('prefill workers lost in the middle of a read');
    for (const { answer } of this.#reads) answer(null);
    this.#reads.clear();
  }

  #settle(requestId: string, kept: Kept): void {
    if (!kept.isOver || kept.numReaders > 0 || this.#kept.get(requestId) !== kept) return;
    this.#kept.delete(requestId);
    this.#world!.releaseBlocks(kept.requestIndex);
    this.#storm!.wakeUp();
  }
}
