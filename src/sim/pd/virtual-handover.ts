/** One engine's hand-over in virtual time: deadlines are events, questions and answers go over the link. */

import { rowShape } from '../../capture/row-shape.ts';
import { toArray } from '../../capture/routed-rows.ts';
import type { ExternalKv, KvConnector, KvLoad, KvLoadOutcome } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { KvKeeper, type KvRead } from '../../handover/kv-keeper.ts';
import { KvLoader, type KvFetch } from '../../handover/kv-loader.ts';
import type { KvReply, RemoteKv } from '../../handover/kv-message.ts';
import type { Mark } from '../coverage.ts';
import type { LoadedKv } from '../laws/tracked-request.ts';
import type { Storm } from '../storm.ts';
import { Phase } from '../virtual/event-heap.ts';
import type { Clock } from '../virtual/event-heap.ts';
import type { World } from '../world.ts';
import type { PdScenario } from './pd-scenario.ts';
import type { VirtualLink } from './virtual-link.ts';

export type HandoverSurroundings = Readonly<{
  engineId: string;
  clock: Clock;
  link: VirtualLink;
  /** What the ledger knows of keys that were read. */
  ledgerKv: WeakMap<Uint32Array, LoadedKv>;
  marks: Set<Mark>;
  pd: PdScenario;
  /** The engine that has KV for this one; `null`: this one has it. */
  peer: VirtualHandover | null;
}>;

/** Nothing is forged in a storm: what is digested can stand for its digest. */
const tokenDigest = (tokens: Uint32Array, numTokens: number): string => tokens.subarray(0, numTokens).join();
const rowsDigest = (rows: RoutedRows): string => `${rows.start}: ${toArray(rows, 0).join()}`;

export class VirtualHandover implements KvConnector {
  readonly keeper: KvKeeper;
  readonly loader: KvLoader<RemoteKv>;
  readonly #around: HandoverSurroundings;
  /** Of requests that may load. */
  readonly #views: Map<string, CaptureRequest> = new Map();
  /** By load. */
  readonly #written: Map<number, LoadedKv> = new Map();
  /** Since the start. Ranks are read in turn: all must have the same KV. */
  #numReads = 0;
  #world: World | null = null;
  #storm: Storm | null = null;

  constructor(around: HandoverSurroundings, { model, engine }: Pick<World['scenario'], 'model' | 'engine'>) {
    const { engineId, clock, link, pd, peer } = around;
    const { rows, onLoadFailure, leaseTicks, loadTicks, readTicks = 0 } = pd;
    const shapes = { blockSize: engine.blockSize, rowShape: rowShape(model), shape: 'sim' };
    const options = { engineId, ...shapes, rows, onLoadFailure, tokenDigest, leaseMs: leaseTicks, loadMs: loadTicks };
    this.#around = around;
    this.keeper = new KvKeeper(options, {
      wakeAt: (time) => clock.plan(time, Phase.client, () => this.keeper.expire(time)),
      prepare: (read, carried) => {
        const end = (): void => this.keeper.prepared(read, carried && rowsDigest(carried));
        if (readTicks === 0) end();
        else clock.plan(clock.now + readTicks, Phase.client, end);
      },
      readKv: (read, blockIds) => this.#readKv(read, blockIds),
      giveBack: (requestIndex) => {
        this.#world!.releaseBlocks(requestIndex);
        this.#storm!.wakeUp();
      },
    });
    this.loader = new KvLoader(options, {
      wakeAt: (time) => clock.plan(time, Phase.client, () => this.loader.expire(time)),
      ask: (fetch) => link.send(() => peer!.#asked(fetch, (reply) => this.#replied(fetch, reply))),
      cancel: () => undefined,
      release: (remote) => link.send(() => peer!.keeper.release(remote.engineId, remote.requestId)),
      writeKv: (load, keys) => this.#writeKv(load, keys),
      finishLoad: ({ loadId }, outcome) => this.#finishLoad(loadId, outcome),
    });
  }

  attach(world: World, storm: Storm): void {
    this.#world = world;
    this.#storm = storm;
  }

  externalKv(request: CaptureRequest): ExternalKv | null {
    const external = this.loader.externalKv(request);
    if (external !== null) this.#views.set(request.requestId, request);
    return external;
  }

  startLoad(load: KvLoad): void {
    const view = this.#views.get(load.requestId)!;
    this.#views.delete(load.requestId);
    this.#world!.onLoadBegun(load, view);
    this.loader.startLoad(load, this.#around.clock.now);
  }

  keepsBlocks(request: CaptureRequest): boolean {
    const keeps = this.keeper.keepsBlocks(request, this.#around.clock.now);
    if (keeps) this.#world!.onKept(request.index);
    return keeps;
  }

  onWorkersLost(): void {
    const { marks } = this.#around;
    if (this.keeper.liveCounts().reads > 0) marks.add('prefill workers lost in the middle of a read');
    if (this.loader.liveCounts().loads > 0) marks.add('decode workers lost in the middle of a load');
    this.keeper.onWorkersLost();
    this.loader.onWorkersLost();
    this.#written.clear();
  }

  #asked({ question, carried }: KvFetch<RemoteKv>, reply: (reply: KvReply) => void): void {
    if (this.keeper.find(question.requestId) === null) this.#around.marks.add('lease over before the KV was read');
    this.keeper.read({ ...question, ...(carried && { rowsDigest: rowsDigest(carried) }) }, reply);
  }

  #replied(fetch: KvFetch<RemoteKv>, reply: KvReply): void {
    const { link, ledgerKv, marks } = this.#around;
    link.send((isCorrupt) => {
      if (!this.loader.isWaitedFor(fetch)) marks.add('late KV that nobody waits for');
      if ('refusal' in reply) {
        this.loader.refused(fetch, reply.refusal);
        return;
      }
      const keys = isCorrupt ? reply.keys.with(0, ~reply.keys[0]!) : reply.keys;
      ledgerKv.set(keys, ledgerKv.get(reply.keys)!);
      this.loader.answered(fetch, { ...reply, keys }, !isCorrupt);
    });
  }

  /** In turn with the engine's steps. */
  #readKv(read: KvRead, blockIds: readonly number[]): void {
    const { kept, question } = read;
    const { ledgerKv, marks } = this.#around;
    const { ledger, scenario } = this.#world!;
    const rank = this.#numReads % scenario.numRanks;
    this.#numReads += 1;
    if (rank > 0) marks.add('KV read from another rank than the first');
    if (kept.isOver) marks.add('kept blocks released before they were read');
    let kv: LoadedKv | null = null;
    this.#storm!.handKv({
      kind: 'read-kv',
      rank,
      blockIds: Uint32Array.from(blockIds),
      onExecuted: () => {
        kv = ledger.readKv(this.#world!.request(kept.requestIndex), kept.blockIds, question.from, question.to);
      },
      onRead: (keys) => {
        ledgerKv.set(keys, kv!);
        this.keeper.keysRead(read, keys);
      },
    });
  }

  #writeKv(load: KvLoad, keys: Uint32Array): void {
    const { ledgerKv, link } = this.#around;
    const { ledger, scenario } = this.#world!;
    const request = this.#world!.request(load.loadId);
    const { blocks } = request;
    const kv = ledgerKv.get(keys)!;
    this.#written.set(load.loadId, kv);
    let numLeft = scenario.numRanks;
    this.#storm!.handKv({
      kind: 'write-kv',
      blockIds: Uint32Array.from(load.blockIds),
      keys,
      onExecuted: () => ledger.writeKv(request, blocks, kv),
      onWritten: () => {
        numLeft -= 1;
        if (numLeft === 0) link.sendSurely(() => this.loader.written(load));
      },
    });
  }

  #finishLoad(loadId: number, outcome: KvLoadOutcome): void {
    const { kind } = outcome;
    if (kind !== 'loaded' && this.#world!.request(loadId).isAlive) {
      this.#around.marks.add(kind === 'fail' ? 'load failed and ended its request' : 'load failed and computed again');
    }
    const kv = kind === 'loaded' ? this.#written.get(loadId)! : null;
    this.#written.delete(loadId);
    this.#world!.finishLoad(loadId, outcome, kv);
    this.#storm!.wakeUp();
  }
}
