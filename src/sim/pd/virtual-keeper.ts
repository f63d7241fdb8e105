/** The keeping side of a hand-over in virtual time: a lease is an event, and a rank's device is read. */

import type { KvConnector } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import { KvKeeper, type KvRead } from '../../handover/kv-keeper.ts';
import type { KvQuestion } from '../../handover/kv-message.ts';
import type { Mark } from '../coverage.ts';
import type { LoadedKv } from '../laws/tracked-request.ts';
import type { Storm } from '../storm.ts';
import { Phase } from '../virtual/event-heap.ts';
import type { Clock } from '../virtual/event-heap.ts';
import type { World } from '../world.ts';
import { rowsDigest, tokenDigest } from './digests.ts';
import type { PdScenario } from './pd-scenario.ts';

/** What the ledger knows of keys that were read. */
export type LedgerKv = WeakMap<Uint32Array, LoadedKv>;

/** Model and block size are the same on both sides. */
export const SHAPE = 'sim';

export class VirtualKeeper implements KvConnector {
  readonly core: KvKeeper;
  readonly #clock: Clock;
  readonly #ledgerKv: LedgerKv;
  readonly #marks: Set<Mark>;
  /** Since the start. Ranks are read in turn: all must have the same KV. */
  #numReads = 0;
  #world: World | null = null;
  #storm: Storm | null = null;

  constructor(clock: Clock, pd: PdScenario, ledgerKv: LedgerKv, marks: Set<Mark>) {
    const { engine, rows, leaseTicks, readTicks = 0 } = pd;
    this.#clock = clock;
    this.#ledgerKv = ledgerKv;
    this.#marks = marks;
    this.core = new KvKeeper(
      { engineId: 'P', blockSize: engine.blockSize, shape: SHAPE, rows, leaseMs: leaseTicks, tokenDigest },
      {
        wakeAt: (time) => clock.plan(time, Phase.client, () => this.core.expire(time)),
        prepare: (read, carried) => {
          const end = (): void => this.core.prepared(read, carried === null ? null : rowsDigest(carried));
          if (readTicks === 0) end();
          else clock.plan(clock.now + readTicks, Phase.client, end);
        },
        readKv: (read, blockIds) => this.#readKv(read, blockIds),
        giveBack: (requestIndex) => {
          this.#world!.releaseBlocks(requestIndex);
          this.#storm!.wakeUp();
        },
      },
    );
  }

  /** The KV of all requests is kept. */
  attach(world: World, storm: Storm): void {
    this.#world = world;
    this.#storm = storm;
    for (const { id, prompt } of world.scenario.requests) this.core.announce(id, Uint32Array.from(prompt));
  }

  externalKv(): null {
    return null;
  }

  startLoad(): void {}

  keepsBlocks(request: CaptureRequest): boolean {
    const keeps = this.core.keepsBlocks(request, this.#clock.now);
    if (keeps) this.#world!.onKept(request.index);
    return keeps;
  }

  read(question: KvQuestion, reply: KvRead['reply']): void {
    if (this.core.find(question.requestId) === null) this.#marks.add('lease over before the KV was read');
    this.core.read(question, reply);
  }

  onWorkersLost(): void {
    if (this.core.numReads > 0) this.#marks.add('prefill workers lost in the middle of a read');
    this.core.onWorkersLost();
  }

  /** In turn with the engine's steps. */
  #readKv(read: KvRead, blockIds: readonly number[]): void {
    const { kept, question } = read;
    const { ledger, scenario } = this.#world!;
    const rank = this.#numReads % scenario.numRanks;
    this.#numReads += 1;
    if (rank > 0) this.#marks.add('KV read from another rank than the first');
    if (kept.isOver) this.#marks.add('kept blocks released before they were read');
    let kv: LoadedKv | null = null;
    this.#storm!.handKv({
      kind: 'read-kv',
      rank,
      blockIds: Uint32Array.from(blockIds),
      onExecuted: () => {
        const request = this.#world!.request(kept.requestIndex);
        kv = ledger.readKv(request, kept.blockIds, question.from, question.to);
      },
      onRead: (keys) => {
        this.#ledgerKv.set(keys, kv!);
        this.core.keysRead(read, keys);
      },
    });
  }
}
