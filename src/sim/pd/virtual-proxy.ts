/**
 * The proxy between two engines: a request goes to the prefill engine for one token, then with what is known of its KV
 * to the decode engine. It waits for the first answer no longer than its patience, and sends the request to the decode
 * engine without KV if that was lost or too late.
 */

import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { random, type Random } from '../../workload/random.ts';
import type { Mark } from '../coverage.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { ScenarioRequest } from '../scenario.ts';
import type { Storm } from '../storm.ts';
import type { KvKeeper } from './kv-keeper.ts';
import type { KvLoader, RemoteKv } from './kv-loader.ts';
import type { ProxyFailure } from './pd-scenario.ts';
import type { VirtualLink } from './virtual-link.ts';

export type ProxySurroundings = Readonly<{
  clock: Clock;
  link: VirtualLink;
  keeper: KvKeeper;
  loader: KvLoader;
  /** As the clients sent them, by id. */
  requests: ReadonlyMap<string, ScenarioRequest>;
  /** `null`: its leg to the prefill engine never fails. */
  failure: ProxyFailure | null;
  seed: number;
  marks: Set<Mark>;
}>;

export class VirtualProxy {
  readonly #around: ProxySurroundings;
  readonly #stream: Random;
  /** Requests that went on to the decode engine, or that their clients have aborted. */
  readonly #settled: Set<string> = new Set();
  #prefill: Storm | null = null;
  #decode: Storm | null = null;

  constructor(around: ProxySurroundings) {
    this.#around = around;
    this.#stream = random(around.seed, 'sim/proxy');
  }

  /** `prefill` has planned the arrival of its requests. */
  attach(prefill: Storm, decode: Storm, prefillRequests: readonly ScenarioRequest[]): void {
    this.#prefill = prefill;
    this.#decode = decode;
    const { clock, failure } = this.#around;
    if (failure === null) return;
    for (const { id, at } of prefillRequests) {
      clock.plan(at + failure.patienceTicks, Phase.client, () => this.#giveUp(id));
    }
  }

  /**
   * The prefill engine has ended a request. One that its client has aborted goes no further; any other does, with its
   * KV if there is some.
   */
  onPrefilled({ id }: ScenarioRequest, finish: FinishReason | 'refused', pieces: readonly RoutedRows[]): void {
    if (this.#settled.has(id)) return;
    if (finish === 'abort') {
      this.#settled.add(id);
      return;
    }
    const { link, keeper, requests, failure, marks } = this.#around;
    const kept = keeper.get(id);
    if (kept !== null) kept.rows = completeRows(pieces, requests.get(id)!.rowsFrom, kept.numTokens);
    const remote = kept === null ? null : { numTokens: kept.numTokens, rows: kept.rows };
    if (failure !== null && this.#stream.nextFloat() < failure.lostShare) {
      marks.add('answer of the prefill engine lost');
      return;
    }
    link.sendSurely(() => this.#handOver(id, remote));
  }

  /** The prefill engine may hear of it, or not: then it keeps the blocks for nobody. */
  #giveUp(id: string): void {
    if (this.#settled.has(id)) return;
    const { link, marks } = this.#around;
    marks.add('proxy gave up on the prefill engine');
    this.#handOver(id, null);
    link.send(() => this.#prefill!.abort([id]));
  }

  #handOver(id: string, remote: RemoteKv | null): void {
    if (this.#settled.has(id)) return;
    this.#settled.add(id);
    const { loader, requests } = this.#around;
    if (remote !== null) loader.announce(id, remote);
    this.#decode!.arrive(requests.get(id)!);
  }
}

/** Rows `[from, to)` without a gap, or `null`. */
function completeRows(pieces: readonly RoutedRows[], from: number, to: number): RoutedRows | null {
  const [rows] = pieces;
  if (pieces.length !== 1 || rows!.start !== from || rows!.missing.length > 0 || rows!.start + rows!.count < to)
    return null;
  return rows!;
}
