/**
 * The proxy between two engines: a request goes to the prefill engine for one token, then with what is known of its KV
 * to the decode engine. It waits for the first answer no longer than its patience, and sends the request to the decode
 * engine without KV if that was lost or too late.
 */

import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { KvKeeper } from '../../handover/kv-keeper.ts';
import type { KvLoader } from '../../handover/kv-loader.ts';
import type { RemoteKv } from '../../handover/kv-message.ts';
import { random, type Random } from '../../workload/random.ts';
import type { Mark } from '../coverage.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { ScenarioRequest } from '../scenario.ts';
import type { Storm } from '../storm.ts';
import type { ProxyFailure } from './pd-scenario.ts';
import type { VirtualLink } from './virtual-link.ts';

export type ProxySurroundings = Readonly<{
  clock: Clock;
  link: VirtualLink;
  from: KvKeeper;
  to: KvLoader<RemoteKv>;
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
    const { clock, failure, from } = this.#around;
    for (const { id, prompt } of prefillRequests) from.announce(id, Uint32Array.from(prompt));
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
    const { link, from, failure, marks } = this.#around;
    const remote = from.ended(id, pieces.length === 1 ? pieces[0]! : null);
    if (this.#settled.has(id)) return;
    if (finish === 'abort') {
      this.#settled.add(id);
      return;
    }
    if (failure !== null && this.#stream.nextFloat() < failure.lostShare) {
      marks.add('answer of the prefill engine lost');
      return;
    }
    link.sendSurely(() => this.#handOver(id, remote));
  }

  /** The prefill engine may not hear of it: then it keeps the blocks until their lease is over. */
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
    const { to, requests } = this.#around;
    const request = requests.get(id)!;
    const { prompt, rows, rowsFrom } = request;
    const promptTokenIds = Uint32Array.from(prompt);
    if (remote !== null) to.announce([id], { remote, promptTokenIds, rowsStart: rows ? rowsFrom : null });
    this.#decode!.arrive(request);
  }
}
