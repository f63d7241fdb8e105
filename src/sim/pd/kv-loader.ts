/**
 * The decode side of a hand-over: asks for KV, waits for it no longer than it may, and writes it to the blocks of the
 * request.
 */

import type { ExternalKv, KvConnector, KvLoad } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { rowShape } from '../../capture/row-shape.ts';
import type { Mark } from '../coverage.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { Storm } from '../storm.ts';
import type { World } from '../world.ts';
import type { KvAnswer, KvKeeper } from './kv-keeper.ts';
import type { PdScenario } from './pd-scenario.ts';
import type { VirtualLink } from './virtual-link.ts';

/** What a request is told of its KV when it comes. */
export type RemoteKv = Readonly<{
  numTokens: number;
  /** All that the request wants of the prompt, or `null`. */
  rows: RoutedRows | null;
}>;

type Pending = {
  readonly load: KvLoad;
  /** The whole block table of the request. */
  readonly blockIds: readonly number[];
  /** The KV has come: nothing can go wrong any more but the loss of the workers. */
  isWriting: boolean;
};

export class KvLoader implements KvConnector {
  readonly #clock: Clock;
  readonly #link: VirtualLink;
  readonly #keeper: KvKeeper;
  readonly #pd: PdScenario;
  readonly #marks: Set<Mark>;
  readonly #remote: Map<string, RemoteKv> = new Map();
  readonly #views: Map<string, CaptureRequest> = new Map();
  readonly #pending: Map<number, Pending> = new Map();
  #world: World | null = null;
  #storm: Storm | null = null;

  constructor(clock: Clock, link: VirtualLink, keeper: KvKeeper, pd: PdScenario, marks: Set<Mark>) {
    this.#clock = clock;
    this.#link = link;
    this.#keeper = keeper;
    this.#pd = pd;
    this.#marks = marks;
  }

  attach(world: World, storm: Storm): void {
    this.#world = world;
    this.#storm = storm;
  }

  get numPending(): number {
    return this.#pending.size;
  }

  /** Tells of a request before it is handed in. */
  announce(requestId: string, remote: RemoteKv): void {
    this.#remote.set(requestId, remote);
  }

  /** The request is over: nobody will read its KV. */
  forget(requestId: string): void {
    this.#views.delete(requestId);
    if (!this.#remote.delete(requestId)) return;
    this.#link.send(() => this.#keeper.release(requestId));
  }

  externalKv(request: CaptureRequest): ExternalKv | null {
    const remote = this.#remote.get(request.requestId);
    if (remote === undefined) return null;
    this.#views.set(request.requestId, request);
    const numTokens = Math.min(remote.numTokens, request.numPromptTokens);
    // Rows that are to be spliced are to be declared missing: whoever asked for that wants the KV all the same.
    return { numTokens, hasRows: this.#pd.rows === 'splice' || remote.rows !== null };
  }

  startLoad(load: KvLoad): void {
    const view = this.#views.get(load.requestId)!;
    const pending: Pending = { load, blockIds: [...view.blockIds], isWriting: false };
    this.#pending.set(load.loadId, pending);
    this.#world!.onLoadBegun(load, view);
    this.#clock.plan(this.#clock.now + this.#pd.loadTicks, Phase.client, () => {
      if (this.#waits(pending)) this.#fail(pending);
    });
    this.#link.send(() => {
      this.#keeper.read(load.requestId, load.from, load.to, (answer) => {
        this.#link.send((isCorrupt) => this.#onAnswer(pending, isCorrupt ? null : answer));
      });
    });
  }

  keepsBlocks(): boolean {
    return false;
  }

  onWorkersLost(): void {
    if (this.#pending.size > 0) this.#marks.add('decode workers lost in the middle of a load');
    this.#pending.clear();
  }

  #waits(pending: Pending): boolean {
    return this.#pending.get(pending.load.loadId) === pending && !pending.isWriting;
  }

  #onAnswer(pending: Pending, answer: KvAnswer | null): void {
    if (!this.#waits(pending)) {
      // Its blocks may be somebody else's by now.
      this.#marks.add('late KV that nobody waits for');
      return;
    }
    if (answer === null) {
      this.#fail(pending);
      return;
    }
    pending.isWriting = true;
    const { load, blockIds } = pending;
    const world = this.#world!;
    const request = world.request(load.loadId);
    let numLeft = world.scenario.numRanks;
    this.#storm!.handKv({
      kind: 'write-kv',
      blockIds: Uint32Array.from(load.blockIds),
      keys: answer.keys,
      onExecuted: () => world.ledger.writeKv(request, blockIds, answer.kv),
      onWritten: () => {
        numLeft -= 1;
        if (numLeft === 0) this.#link.sendSurely(() => this.#finish(pending, answer));
      },
    });
  }

  #finish(pending: Pending, answer: KvAnswer): void {
    const { load } = pending;
    // Workers that died meanwhile took it with them.
    if (this.#pending.get(load.loadId) !== pending) return;
    this.#pending.delete(load.loadId);
    const rows = this.#rowsOf(load, answer);
    this.#world!.finishLoad(load.loadId, { kind: 'loaded', rows }, answer.kv);
    this.#storm!.wakeUp();
    this.#link.send(() => this.#keeper.release(load.requestId));
  }

  #fail(pending: Pending): void {
    const { loadId } = pending.load;
    const { onLoadFailure: kind } = this.#pd;
    this.#pending.delete(loadId);
    if (this.#world!.request(loadId).isAlive) {
      this.#marks.add(kind === 'fail' ? 'load failed and ended its request' : 'load failed and computed again');
    }
    this.#world!.finishLoad(loadId, { kind }, null);
    this.#storm!.wakeUp();
  }

  /** The rows to go with the load; `null`: none are wanted, or there are none. */
  #rowsOf({ requestId, loadId, from, to }: KvLoad, answer: KvAnswer): RoutedRows | null {
    const { spec } = this.#world!.request(loadId);
    if (!spec.rows) return null;
    const start = Math.max(spec.rowsFrom, from);
    const count = Math.max(0, to - start);
    switch (this.#pd.rows) {
      case 'carry':
        return this.#remote.get(requestId)?.rows ?? null;
      case 'with-kv':
        return answer.rows === null ? null : { ...answer.rows, start, count };
      case 'splice': {
        const { numLayers, topK, dtype } = rowShape(this.#world!.scenario.model);
        const missing: RoutedRows['missing'] = count > 0 ? [[start, to]] : [];
        return {
          start,
          count,
          numLayers,
          topK,
          dtype,
          rowsPerChunk: Math.max(1, count),
          chunkOrigin: start,
          chunks: [null],
          missing,
        };
      }
      default:
        return this.#pd.rows satisfies never;
    }
  }
}
