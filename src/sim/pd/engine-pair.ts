/**
 * Two engines and what is between them, in one virtual time.
 *
 *     clients ─▶ P: World, Storm, ranks ──ends──▶ proxy ──▶ D: World, Storm, ranks ─▶ outputs
 *                     │ KvKeeper ◀───── link: question, release ───── KvLoader │
 *                     └──────────────── link: keys, rows ────────────────▶─────┘
 *
 * Passes of P and of D have epochs that differ: a row tells which engine computed it (L9).
 */

import type { Mark } from '../coverage.ts';
import type { Judge } from '../laws/judge.ts';
import type { Clock } from '../virtual/event-heap.ts';
import type { Scenario } from '../scenario.ts';
import { Storm } from '../storm.ts';
import { World, type RunContext } from '../world.ts';
import type { PdScenario } from './pd-scenario.ts';
import { decodeScenario, prefillScenario } from './side-scenarios.ts';
import { VirtualHandover } from './virtual-handover.ts';
import { VirtualLink } from './virtual-link.ts';
import { VirtualProxy } from './virtual-proxy.ts';

/** Beyond every step of the decode engine. */
const FIRST_PREFILL_EPOCH = 1_000_000;

export class EnginePair {
  readonly #from: VirtualHandover;
  readonly #to: VirtualHandover;
  readonly #prefill: Storm;
  readonly #decode: Storm;
  readonly #judge: Judge;
  readonly #marks: ReadonlySet<Mark>;

  /** `pd`: that of the scenario. */
  constructor(scenario: Scenario, pd: PdScenario, { run, clock }: Readonly<{ run: RunContext; clock: Clock }>) {
    const { tested, marks } = run;
    this.#judge = run.judge;
    this.#marks = marks;
    const link = new VirtualLink(clock, pd.link, scenario.seed);
    const common = { clock, link, pd, marks, ledgerKv: new WeakMap() };
    const [prefilled, decoded] = [prefillScenario(scenario, pd), decodeScenario(scenario, pd)];
    this.#from = new VirtualHandover({ ...common, engineId: 'P', peer: null }, prefilled);
    this.#to = new VirtualHandover({ ...common, engineId: 'D', peer: this.#from }, decoded);
    const proxy = new VirtualProxy({
      clock,
      link,
      from: this.#from.keeper,
      to: this.#to.loader,
      requests: new Map(scenario.requests.map((request) => [request.id, request])),
      failure: pd.proxy ?? null,
      seed: scenario.seed,
      marks,
    });
    const prefill = new World(prefilled, run, {
      prefix: 'P: ',
      firstEpoch: FIRST_PREFILL_EPOCH,
      connector: this.#from,
      rowsAreSpliced: false,
      onEnd: (spec, finish, rows) => proxy.onPrefilled(spec, finish, rows),
    });
    const decode = new World(decoded, run, {
      prefix: 'D: ',
      firstEpoch: 1,
      connector: this.#to,
      rowsAreSpliced: pd.rows === 'splice',
      onEnd: ({ id }) => this.#to.loader.ended(id),
    });
    this.#prefill = new Storm(prefill, tested, clock);
    this.#decode = new Storm(decode, tested, clock);
    proxy.attach(this.#prefill, this.#decode, prefilled.requests);
    this.#from.attach(prefill, this.#prefill);
    this.#to.attach(decode, this.#decode);
  }

  get numSteps(): number {
    return this.#prefill.numSteps + this.#decode.numSteps;
  }

  /** After the last event. */
  checkEnd(): void {
    this.#prefill.checkEnd();
    this.#decode.checkEnd();
    const { kept, reads, requests: toKeep } = this.#from.keeper.liveCounts();
    const { loads, requests: toLoad } = this.#to.loader.liveCounts();
    // A request that comes to an engine whose workers are lost for good is never taken in, and so it never ends.
    const remembered = this.#marks.has('worker lost for good') ? 0 : toKeep + toLoad;
    if (kept + reads + loads + remembered === 0) return;
    const left = `${kept} requests keep blocks, ${reads} reads and ${loads} loads are under way`;
    this.#judge.wrong('L7', `${left}, and ${remembered} requests are remembered after the drain`);
  }
}
