/** Draws how long things take, from streams of their own: one more map does not change the time of a pass. */

import { random, type Random } from '../../workload/random.ts';
import type { Clock } from './event-heap.ts';
import type { Scenario, Timing } from '../scenario.ts';
import type { StageScenario } from '../stages/stage-scenario.ts';

export class VirtualDurations {
  readonly clock: Clock;
  readonly #timing: Timing;
  readonly #passes: Random;
  readonly #maps: Random;
  readonly #wires: Random;
  readonly #stages: StageScenario | null;
  readonly #handOvers: Random;

  constructor(clock: Clock, { seed, timing, stages }: Pick<Scenario, 'seed' | 'timing' | 'stages'>) {
    this.clock = clock;
    this.#timing = timing;
    this.#passes = random(seed, 'sim/passes');
    this.#maps = random(seed, 'sim/maps');
    this.#wires = random(seed, 'sim/wires');
    this.#stages = stages ?? null;
    this.#handOvers = random(seed, 'sim/hand-overs');
  }

  /** Ticks of one forward pass, or of a stage's part of it. */
  pass(stage: number): number {
    const { pass, passJitter, slowPassShare, slowPassFactor } = this.#timing;
    const ticks = drawn(this.#passes, {
      ticks: pass,
      jitter: passJitter,
      share: slowPassShare,
      factor: slowPassFactor,
    });
    return this.#stages?.slowStage === stage ? ticks * this.#stages.slowFactor : ticks;
  }

  /** Ticks from one stage to the next. */
  handOver(): number {
    const { handOver, handOverJitter } = this.#stages!;
    return handOver + this.#handOvers.below(handOverJitter + 1);
  }

  /** Ticks from the end of a pass until its results can be read. */
  map(): number {
    const { map, mapJitter, lateMapShare, lateMapFactor } = this.#timing;
    return drawn(this.#maps, { ticks: map, jitter: mapJitter, share: lateMapShare, factor: lateMapFactor });
  }

  /** Ticks from engine to worker or back. */
  wire(): number {
    return this.#wires.below(this.#timing.wire + 1);
  }

  /** Ticks until a step is begun. */
  engine(): number {
    return this.#wires.below(this.#timing.engine + 1);
  }

  /** Ticks until an output is taken in. */
  update(): number {
    return this.#wires.below(this.#timing.update + 1);
  }

  /** Ticks between two steps of a worker. */
  host(): number {
    return 1;
  }

  get respawn(): number {
    return this.#timing.respawn;
  }
}

type Duration = Readonly<{ ticks: number; jitter: number; share: number; factor: number }>;

/** Draws ticks in `[ticks, ticks + jitter]`, a `share` of them `factor` times as long. */
function drawn(stream: Random, { ticks, jitter, share, factor }: Duration): number {
  const base = ticks + stream.below(jitter + 1);
  return share > 0 && stream.nextFloat() < share ? base * factor : base;
}
