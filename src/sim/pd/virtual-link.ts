/**
 * A link between two engines that is slow, and loses and garbles messages. Messages may overtake each other: each is a
 * connection of its own.
 */

import { random, type Random } from '../../workload/random.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { LinkTiming } from './pd-scenario.ts';

export class VirtualLink {
  readonly #clock: Clock;
  readonly #timing: LinkTiming;
  readonly #stream: Random;

  constructor(clock: Clock, timing: LinkTiming, seed: number) {
    this.#clock = clock;
    this.#timing = timing;
    this.#stream = random(seed, 'sim/link');
  }

  /** `deliver` may never be called. */
  send(deliver: (isCorrupt: boolean) => void): void {
    const { lostShare, corruptShare } = this.#timing;
    const ticks = this.#ticks();
    const isLost = this.#stream.nextFloat() < lostShare;
    const isCorrupt = this.#stream.nextFloat() < corruptShare;
    if (!isLost) this.#clock.plan(this.#clock.now + ticks, Phase.wire, () => deliver(isCorrupt));
  }

  /** What always arrives: its sender notices if it does not, and sends it again. */
  sendSurely(deliver: () => void): void {
    this.#clock.plan(this.#clock.now + this.#ticks(), Phase.wire, deliver);
  }

  #ticks(): number {
    const { delay, jitter, slowShare, slowFactor } = this.#timing;
    const ticks = delay + this.#stream.below(jitter + 1);
    return this.#stream.nextFloat() < slowShare ? ticks * slowFactor : ticks;
  }
}
