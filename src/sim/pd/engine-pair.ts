/**
 * Two engines and what is between them, in one virtual time.
 *
 *     clients ─▶ P: World, Storm, ranks ──ends──▶ proxy ──▶ D: World, Storm, ranks ─▶ outputs
 *                   VirtualKeeper ◀───── link: question, release ───── VirtualLoader
 *                      └──────────────── link: keys, rows ──────────────────▶┘
 *
 * Passes of P and of D have epochs that differ: a row of D's tells whose it is (L9).
 */

import type { Router } from '../../kernels/model/route/route.ts';
import type { Mark } from '../coverage.ts';
import type { EventLog } from '../event-log.ts';
import type { Judge } from '../laws/judge.ts';
import type { Clock } from '../virtual/event-heap.ts';
import type { Scenario } from '../scenario.ts';
import { Storm } from '../storm.ts';
import type { TestedDesign } from '../tested-design.ts';
import { World } from '../world.ts';
import { VirtualKeeper, type LedgerKv } from './virtual-keeper.ts';
import { VirtualLoader } from './virtual-loader.ts';
import type { PdScenario } from './pd-scenario.ts';
import { decodeScenario, prefillScenario } from './side-scenarios.ts';
import { VirtualLink } from './virtual-link.ts';
import { VirtualProxy } from './virtual-proxy.ts';

/** Beyond every step of the decode engine. */
const FIRST_PREFILL_EPOCH = 1_000_000;

export class EnginePair {
  readonly #keeper: VirtualKeeper;
  readonly #loader: VirtualLoader;
  readonly #prefill: Storm;
  readonly #decode: Storm;
  readonly #judge: Judge;
  readonly #marks: ReadonlySet<Mark>;

  constructor(
    scenario: Scenario,
    pd: PdScenario,
    tested: TestedDesign,
    router: Router,
    clock: Clock,
    judge: Judge,
    log: EventLog,
    marks: Set<Mark>,
  ) {
    this.#judge = judge;
    this.#marks = marks;
    const link = new VirtualLink(clock, pd.link, scenario.seed);
    const ledgerKv: LedgerKv = new WeakMap();
    this.#keeper = new VirtualKeeper(clock, pd, ledgerKv, marks);
    this.#loader = new VirtualLoader({ clock, link, keeper: this.#keeper, ledgerKv, marks }, pd, scenario);
    const proxy = new VirtualProxy({
      clock,
      link,
      keeper: this.#keeper,
      loader: this.#loader,
      requests: new Map(scenario.requests.map((request) => [request.id, request])),
      failure: pd.proxy ?? null,
      seed: scenario.seed,
      marks,
    });
    const prefill = new World(prefillScenario(scenario, pd), tested, router, judge, log, marks, {
      prefix: 'P: ',
      firstEpoch: FIRST_PREFILL_EPOCH,
      connector: this.#keeper,
      rowsAreSpliced: false,
      onEnd: (spec, finish, rows) => proxy.onPrefilled(spec, finish, rows),
    });
    const decode = new World(decodeScenario(scenario, pd), tested, router, judge, log, marks, {
      prefix: 'D: ',
      firstEpoch: 1,
      connector: this.#loader,
      rowsAreSpliced: pd.rows === 'splice',
      onEnd: ({ id }) => this.#loader.ended(id),
    });
    this.#prefill = new Storm(prefill, tested, clock);
    this.#decode = new Storm(decode, tested, clock);
    proxy.attach(this.#prefill, this.#decode, prefill.scenario.requests);
    this.#keeper.attach(prefill, this.#prefill);
    this.#loader.attach(decode, this.#decode);
  }

  get numSteps(): number {
    return this.#prefill.numSteps + this.#decode.numSteps;
  }

  /** After the last event. */
  checkEnd(): void {
    this.#prefill.checkEnd();
    this.#decode.checkEnd();
    const [{ core: keeper }, { core: loader }] = [this.#keeper, this.#loader];
    const { numKept, numReads } = keeper;
    const { numLoads } = loader;
    if (numKept + numReads + numLoads > 0) {
      const left = `${numKept} requests keep blocks, ${numReads} reads and ${numLoads} loads are under way`;
      this.#judge.wrong('L7', `${left} after the drain`);
    }
    // Requests that come to an engine whose workers are lost for good are never taken in.
    if (this.#marks.has('worker lost for good') || keeper.numRequests + loader.numRequests === 0) return;
    const remembered = `${keeper.numRequests} requests to keep and ${loader.numRequests} to load for`;
    this.#judge.wrong('L7', `${remembered} are remembered after the drain`);
  }
}
