/**
 * Two engines and what is between them, in one virtual time. The proxy's part is here: a request goes to the prefill engine for one token, then
 * with what is known of its KV to the decode engine.
 *
 *     clients ─▶ P: World, Storm, ranks ──ends──▶ proxy ──▶ D: World, Storm, ranks ─▶ outputs
 *                      │ KvKeeper ◀───── link: read, release ─────── KvLoader │
 *                      └───────── link: keys, rows ─────────────────▶─────────┘
 *
 * Passes of P and of D have epochs that differ: a row of D's tells whose it is (L9).
 */

import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { Router } from '../../kernels/reference/route.ts';
import type { Mark } from '../coverage.ts';
import type { EventLog } from '../event-log.ts';
import type { Judge } from '../judge.ts';
import type { Clock } from '../pace.ts';
import type { Scenario, ScenarioRequest } from '../scenario.ts';
import { Storm } from '../storm.ts';
import type { Subject } from '../subject.ts';
import { World } from '../world.ts';
import { KvKeeper } from './kv-keeper.ts';
import { KvLoader } from './kv-loader.ts';
import { decodeScenario, prefillScenario, type PdScenario } from './pd-scenario.ts';
import { VirtualLink } from './virtual-link.ts';

/** Beyond every step of the decode engine. */
const FIRST_PREFILL_EPOCH = 1_000_000;

export class EnginePair {
  readonly #keeper: KvKeeper;
  readonly #loader: KvLoader;
  readonly #link: VirtualLink;
  readonly #requests: ReadonlyMap<string, ScenarioRequest>;
  readonly #prefill: Storm;
  readonly #decode: Storm;
  readonly #judge: Judge;

  constructor(
    scenario: Scenario,
    pd: PdScenario,
    subject: Subject,
    router: Router,
    clock: Clock,
    judge: Judge,
    log: EventLog,
    marks: Set<Mark>,
  ) {
    this.#judge = judge;
    this.#requests = new Map(scenario.requests.map((request) => [request.id, request]));
    this.#link = new VirtualLink(clock, pd.link, scenario.seed);
    this.#keeper = new KvKeeper(clock, pd.leaseTicks, marks);
    this.#loader = new KvLoader(clock, this.#link, this.#keeper, pd, marks);
    const prefill = new World(prefillScenario(scenario, pd), subject, router, judge, log, marks, {
      prefix: 'P: ',
      firstEpoch: FIRST_PREFILL_EPOCH,
      connector: this.#keeper,
      rowsAreSpliced: false,
      onEnd: (spec, finish, rows) => this.#onPrefilled(spec, finish, rows),
    });
    const decode = new World(decodeScenario(scenario, pd), subject, router, judge, log, marks, {
      prefix: 'D: ',
      firstEpoch: 1,
      connector: this.#loader,
      rowsAreSpliced: pd.rows === 'splice',
      onEnd: ({ id }) => this.#loader.forget(id),
    });
    this.#prefill = new Storm(prefill, subject, clock);
    this.#decode = new Storm(decode, subject, clock);
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
    if (this.#keeper.numKept === 0 && this.#loader.numPending === 0) return;
    this.#judge.wrong(
      'L7',
      `${this.#keeper.numKept} requests keep blocks and ${this.#loader.numPending} loads are pending after the drain`,
    );
  }

  /** An aborted request has nobody who waits for it; any other goes on, with its KV if there is some. */
  #onPrefilled({ id }: ScenarioRequest, finish: FinishReason | 'refused', pieces: readonly RoutedRows[]): void {
    if (finish === 'abort') return;
    const request = this.#requests.get(id)!;
    const kept = this.#keeper.get(id);
    if (kept !== null) kept.rows = completeRows(pieces, request.rowsFrom, kept.numTokens);
    const remote = kept === null ? null : { numTokens: kept.numTokens, rows: kept.rows };
    this.#link.sendSurely(() => {
      if (remote !== null) this.#loader.announce(id, remote);
      this.#decode.arrive(request);
    });
  }
}

/** Rows `[from, to)` without a gap, or `null`. */
function completeRows(pieces: readonly RoutedRows[], from: number, to: number): RoutedRows | null {
  const [rows] = pieces;
  if (pieces.length !== 1 || rows!.start !== from || rows!.missing.length > 0 || rows!.start + rows!.count < to)
    return null;
  return rows!;
}
