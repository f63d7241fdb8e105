/** The loading side of a hand-over in virtual time: questions and answers go over the link, keys to all ranks. */

import type { ExternalKv, KvConnector, KvLoad, KvLoadOutcome } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import { KvLoader, type KvFetch } from '../../handover/kv-loader.ts';
import type { KvReply, RemoteKv } from '../../handover/kv-message.ts';
import { rowShape } from '../../capture/row-shape.ts';
import type { Mark } from '../coverage.ts';
import type { LoadedKv } from '../laws/tracked-request.ts';
import type { Scenario, ScenarioRequest } from '../scenario.ts';
import type { Storm } from '../storm.ts';
import { Phase } from '../virtual/event-heap.ts';
import type { Clock } from '../virtual/event-heap.ts';
import type { World } from '../world.ts';
import { rowsDigest, tokenDigest } from './digests.ts';
import type { PdScenario } from './pd-scenario.ts';
import { SHAPE, type LedgerKv, type VirtualKeeper } from './virtual-keeper.ts';
import type { VirtualLink } from './virtual-link.ts';

type Fetch = KvFetch<RemoteKv>;

/** What the decode engine stands among. */
export type LoaderSurroundings = Readonly<{
  clock: Clock;
  link: VirtualLink;
  keeper: VirtualKeeper;
  ledgerKv: LedgerKv;
  marks: Set<Mark>;
}>;

export class VirtualLoader implements KvConnector {
  readonly core: KvLoader<RemoteKv>;
  readonly #around: LoaderSurroundings;
  /** Of requests that may load. */
  readonly #views: Map<string, CaptureRequest> = new Map();
  /** By load: the whole block table of its request, and what was written to it. */
  readonly #tables: Map<number, readonly number[]> = new Map();
  readonly #written: Map<number, LoadedKv> = new Map();
  #world: World | null = null;
  #storm: Storm | null = null;

  constructor(around: LoaderSurroundings, pd: PdScenario, { model, engine }: Scenario) {
    const { clock, link, keeper } = around;
    const { rows, loadTicks, onLoadFailure } = pd;
    const { blockSize } = engine;
    this.#around = around;
    this.core = new KvLoader(
      { blockSize, rowShape: rowShape(model), shape: SHAPE, rows, loadMs: loadTicks, onLoadFailure, tokenDigest },
      {
        wakeAt: (time) => clock.plan(time, Phase.client, () => this.core.expire(time)),
        ask: (fetch) => this.#ask(fetch),
        cancel: () => undefined,
        release: ({ engineId, requestId }) => link.send(() => keeper.core.release(engineId, requestId)),
        writeKv: (load, keys) => this.#writeKv(load, keys),
        finishLoad: (loadId, outcome) => this.#finishLoad(loadId, outcome),
        onFailure: () => undefined,
      },
    );
  }

  attach(world: World, storm: Storm): void {
    this.#world = world;
    this.#storm = storm;
  }

  /** Tells of a request before it is handed in. */
  announce({ id, prompt, rows, rowsFrom }: ScenarioRequest, remote: RemoteKv): void {
    this.core.announce([id], { remote, promptTokenIds: Uint32Array.from(prompt), rowsStart: rows ? rowsFrom : null });
  }

  /** The request is over. */
  ended(requestId: string): void {
    this.#views.delete(requestId);
    this.core.ended(requestId);
  }

  externalKv(request: CaptureRequest): ExternalKv | null {
    const external = this.core.externalKv(request);
    if (external !== null) this.#views.set(request.requestId, request);
    return external;
  }

  startLoad(load: KvLoad): void {
    const view = this.#views.get(load.requestId)!;
    this.#tables.set(load.loadId, [...view.blockIds]);
    this.#world!.onLoadBegun(load, view);
    this.core.startLoad(load, this.#around.clock.now);
  }

  keepsBlocks(): boolean {
    return false;
  }

  onWorkersLost(): void {
    if (this.core.numLoads > 0) this.#around.marks.add('decode workers lost in the middle of a load');
    this.core.onWorkersLost();
    this.#tables.clear();
    this.#written.clear();
  }

  #ask(fetch: Fetch): void {
    const { link, keeper } = this.#around;
    const { question, carried } = fetch;
    link.send(() => {
      const whole = { ...question, rowsDigest: carried === null ? null : rowsDigest(carried) };
      keeper.read(whole, (reply) => link.send((isCorrupt) => this.#arrived(fetch, reply, isCorrupt)));
    });
  }

  #arrived(fetch: Fetch, reply: KvReply, isCorrupt: boolean): void {
    const { ledgerKv, marks } = this.#around;
    if (!this.core.isWaitedFor(fetch)) marks.add('late KV that nobody waits for');
    if (reply.kind === 'refused') {
      this.core.refused(fetch, reply.reason);
      return;
    }
    let { keys } = reply.answer;
    if (isCorrupt) {
      const kv = ledgerKv.get(keys)!;
      keys = keys.slice();
      keys[0]! ^= 1;
      ledgerKv.set(keys, kv);
    }
    this.core.answered(fetch, { ...reply.answer, keys }, !isCorrupt);
  }

  #writeKv(load: KvLoad, keys: Uint32Array): void {
    const { loadId } = load;
    const { ledgerKv, link } = this.#around;
    const world = this.#world!;
    const kv = ledgerKv.get(keys)!;
    const table = this.#tables.get(loadId)!;
    this.#written.set(loadId, kv);
    let numLeft = world.scenario.numRanks;
    this.#storm!.handKv({
      kind: 'write-kv',
      blockIds: Uint32Array.from(load.blockIds),
      keys,
      onExecuted: () => world.ledger.writeKv(world.request(loadId), table, kv),
      onWritten: () => {
        numLeft -= 1;
        if (numLeft === 0) link.sendSurely(() => this.core.written(load));
      },
    });
  }

  #finishLoad(loadId: number, outcome: KvLoadOutcome): void {
    const { kind } = outcome;
    const { marks } = this.#around;
    if (kind !== 'loaded' && this.#world!.request(loadId).isAlive) {
      marks.add(kind === 'fail' ? 'load failed and ended its request' : 'load failed and computed again');
    }
    const kv = kind === 'loaded' ? this.#written.get(loadId)! : null;
    this.#tables.delete(loadId);
    this.#written.delete(loadId);
    this.#world!.finishLoad(loadId, outcome, kv);
    this.#storm!.wakeUp();
  }
}
