/** The clients of an engine: as many as it has requests in flight. Each sends its next request when one has ended. */

import { random, type Random } from '../../workload/random.ts';
import type { ScenarioRequest } from '../scenario.ts';
import type { ClusterOptions, Lengths, ServedBefore } from './cluster-options.ts';

/** Prefixes of an engine that requests share, and the share of requests that begin with one. */
const NUM_PREFIXES = 4;
const PREFIX_SHARE = 0.25;

export class Clients {
  readonly #options: ClusterOptions;
  readonly #prompts: Random;
  readonly #lengths: Random;
  readonly #prefixes: readonly (readonly number[])[];
  /** The engine's share of requests that were served before; `null`: they are drawn. */
  readonly #served: ServedBefore['requests'] | null;
  readonly #optIns: Random;
  #numSent = 0;

  constructor(options: ClusterOptions, engine: number) {
    const { seed, prompt, served, numEngines } = options;
    this.#options = options;
    this.#served = served && served.requests.filter((_, i) => i % numEngines === engine);
    this.#optIns = random(seed, `cluster/opt-in/${engine}`);
    this.#prompts = random(seed, `cluster/prompts/${engine}`);
    this.#lengths = random(seed, `cluster/lengths/${engine}`);
    this.#prefixes = Array.from({ length: NUM_PREFIXES }, () => this.#tokens(Math.floor(prompt.to / 2)));
  }

  get numSent(): number {
    return this.#numSent;
  }

  /** There is no other request to send. */
  get isDone(): boolean {
    return this.#served !== null && this.#numSent >= this.#served.length;
  }

  /** `isFirst`: of its client. Those end at different times, as if they had begun before. `null`: there is none. */
  next(at: number, isFirst: boolean): ScenarioRequest | null {
    if (this.isDone) return null;
    const request = this.#served === null ? this.#drawn(isFirst) : this.#served[this.#numSent]!;
    return {
      at,
      id: `${this.#numSent++}`,
      ...request,
      minTokens: 0,
      eos: null,
      stops: [],
      rows: this.#optIns.nextFloat() < this.#options.optInShare,
      rowsFrom: 0,
      priority: 0,
      salt: null,
    };
  }

  #drawn(isFirst: boolean): ServedBefore['requests'][number] {
    const { prompt, output } = this.#options;
    const length = this.#between(prompt);
    const whole = this.#between(output);
    const begins = this.#lengths.nextFloat() < PREFIX_SHARE ? this.#prefixes[this.#lengths.below(NUM_PREFIXES)]! : [];
    const start = begins.slice(0, length - 1);
    return {
      prompt: [...start, ...this.#tokens(length - start.length)],
      maxTokens: isFirst ? 1 + this.#lengths.below(whole) : whole,
    };
  }

  #between({ from, to }: Lengths): number {
    return from + this.#lengths.below(to - from + 1);
  }

  #tokens(count: number): number[] {
    return Array.from({ length: count }, () => this.#prompts.below(this.#options.model.vocabSize));
  }
}
