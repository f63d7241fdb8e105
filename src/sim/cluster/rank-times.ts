/** How long things take on the ranks of a cluster, in ticks of 1 µs; each rank draws from a stream of its own. */

import { random, type Random } from '../../workload/random.ts';
import type { Clock } from '../virtual/event-heap.ts';
import type { PassSize, RankDurations } from '../virtual/rank-surroundings.ts';
import { passUs, type ClusterOptions } from './cluster-options.ts';
import { quantileAt, type ClusterCosts } from './costs.ts';
import { exchangeUs } from './exchange.ts';

export class RankTimes implements RankDurations {
  readonly clock: Clock;
  readonly #costs: ClusterCosts;
  readonly #options: ClusterOptions;
  readonly #passes: Random;
  readonly #messages: Random;
  readonly #slowness: number;
  readonly #nicSlowness: number;
  readonly #captures: boolean;

  constructor(clock: Clock, options: ClusterOptions, rank: number, node: number) {
    const { costs, seed, faults, tested } = options;
    this.clock = clock;
    this.#options = options;
    this.#costs = costs;
    this.#passes = random(seed, `cluster/passes/${rank}`);
    this.#messages = random(seed, `cluster/messages/${rank}`);
    this.#captures = tested.design.name !== 'off';
    const factors = (kind: 'slow-rank' | 'slow-nic', place: number): number =>
      faults.reduce((product, fault) => {
        if (fault.kind !== kind) return product;
        return ('rank' in fault ? fault.rank : fault.node) === place ? product * fault.factor : product;
      }, 1);
    this.#slowness = factors('slow-rank', rank);
    this.#nicSlowness = factors('slow-nic', node);
  }

  pass({ numTokens, captureBytes }: Omit<PassSize, 'stage'>): number {
    const { costs, model } = this.#options;
    const hook = this.#captures ? costs.hookPerRowUs * numTokens : 0;
    const rest = quantileAt(costs.pass.restUs, this.#passes.nextFloat());
    const exchange = exchangeUs(this.#options, numTokens);
    const alone = (passUs(costs, numTokens) + hook + rest) * this.#slowness;
    // The layers wait for the wire one after the other: all of it is time of the pass.
    const wire = model.numLayers * 2 * exchange.latency + exchange.transfer;
    return Math.max(1, Math.round(alone + wire * this.#nicSlowness) + this.#copy(captureBytes));
  }

  read(byteLength: number): number {
    return this.#copy(byteLength);
  }

  /** The end of a pass is known with the pass itself: its time is measured so. */
  map(kind: string): number {
    if (kind === 'pass') return 0;
    return Math.round(kind === 'results' ? this.#costs.readLatencyUs : this.#costs.blockingReadUs);
  }

  host(): number {
    return 0;
  }

  /** Between the thread of the rank and its engine's. */
  message(): number {
    return Math.round(quantileAt(this.#costs.messageUs, this.#messages.nextFloat()));
  }

  #copy(byteLength: number): number {
    return Math.round(byteLength / (this.#costs.readGBPerS * 1e3));
  }
}
