/**
 * Small worlds, exhaustively: a few requests, and every order in which what is pending can happen. Where a storm draws
 * one order out of many, this runs them all, by stateless search: a run follows a list of choices and then takes the
 * first one; the next run takes the next at the last place where there is one.
 *
 *     pending    device │ map │ update │ begin │ client        each in its own order; a choice says which is next
 *     choices    [ 0, 0, 2, 0, 1, … ]
 *
 * Messages between engine and worker arrive at once: their delay is the same as that of what follows them. Clients of
 * time 0 are there from the start.
 */

import { Phase, type Clock } from '../../src/sim/virtual/event-heap.ts';
import { EventLog } from '../../src/sim/event-log.ts';
import { Judge } from '../../src/sim/laws/judge.ts';
import { verdict } from '../../src/sim/run-scenario.ts';
import type { Scenario } from '../../src/sim/scenario.ts';
import { routerOf } from '../../src/sim/virtual/sim-kernels.ts';
import { Storm } from '../../src/sim/storm.ts';
import type { TestedDesign } from '../../src/sim/tested-design.ts';
import type { Violation } from '../../src/sim/laws/violation.ts';
import { World } from '../../src/sim/world.ts';

type Pending = { time: number; run: () => void };

const CHOICES: readonly Phase[] = [Phase.device, Phase.map, Phase.update, Phase.begin, Phase.client];

/** A clock that goes where a list of choices says. */
class ChoiceClock implements Clock {
  now = 0;
  /** Taken at each place, and how many there were to choose from. */
  readonly taken: number[] = [];
  readonly numOptions: number[] = [];
  readonly #choices: readonly number[];
  readonly #queues: readonly Pending[][] = Array.from({ length: Phase.begin + 1 }, () => []);

  readonly #atOnce: readonly Phase[];
  readonly #free: readonly Phase[];

  constructor(choices: readonly number[], mapsWait: boolean) {
    this.#choices = choices;
    this.#atOnce = mapsWait ? [Phase.worker, Phase.wire] : [Phase.worker, Phase.wire, Phase.map];
    this.#free = CHOICES.filter((phase) => !this.#atOnce.includes(phase));
  }

  plan(time: number, phase: Phase, run: () => void): void {
    const queue = this.#queues[phase]!;
    let at = queue.length;
    // Clients come in the order of their times, everything else in the order in which it was planned.
    if (phase === Phase.client) while (at > 0 && queue[at - 1]!.time > time) at -= 1;
    queue.splice(at, 0, { time, run });
  }

  /** `false`: nothing is pending. */
  runNext(): boolean {
    for (const phase of this.#atOnce) {
      const next = this.#queues[phase]!.shift();
      if (next === undefined) continue;
      next.run();
      return true;
    }
    const clients = this.#queues[Phase.client]!;
    if (clients[0]?.time === 0) {
      clients.shift()!.run();
      return true;
    }
    const options = this.#free.filter((phase) => this.#queues[phase]!.length > 0);
    if (options.length === 0) return false;
    let choice = 0;
    if (options.length > 1) {
      choice = this.#choices[this.taken.length] ?? 0;
      this.taken.push(choice);
      this.numOptions.push(options.length);
    }
    this.now += 1;
    this.#queues[options[choice]!]!.shift()!.run();
    return true;
  }
}

export type SmallWorldResult = Readonly<{
  /** Orders tried. */
  numOrders: number;
  /** No order was left out. */
  isComplete: boolean;
  /** The first that broke a law, and the choices that lead there. */
  violation: Violation | null;
  choices: readonly number[];
}>;

export type OrderLimits = Readonly<{
  mostOrders: number;
  /** A map may come late. `false`: it comes with the end of its pass, which with one step in flight is no loss. */
  mapsWait: boolean;
}>;

/** Runs a scenario in every order. Its times count only for the order of its clients. */
export function exploreOrders(scenario: Scenario, tested: TestedDesign, limits: OrderLimits): SmallWorldResult {
  let choices: number[] | null = [];
  let numOrders = 0;
  while (choices !== null && numOrders < limits.mostOrders) {
    const clock = new ChoiceClock(choices, limits.mapsWait);
    numOrders += 1;
    const violation = runOrder(scenario, tested, clock);
    if (violation !== null) return { numOrders, isComplete: false, violation, choices: clock.taken };
    choices = nextChoices(clock);
  }
  return { numOrders, isComplete: choices === null, violation: null, choices: [] };
}

function runOrder(scenario: Scenario, tested: TestedDesign, clock: ChoiceClock): Violation | null {
  const judge = new Judge(tested.gaps);
  const uninstall = tested.mutation.install?.();
  try {
    const router = routerOf(scenario.model);
    const world = new World(scenario, { tested, router, judge, log: new EventLog(false), marks: new Set() });
    const storm = new Storm(world, tested, clock);
    while (clock.runNext());
    storm.checkEnd();
    return null;
  } catch (error) {
    return verdict(error, judge);
  } finally {
    uninstall?.();
  }
}

/** The choices of the next order, depth first; `null`: there is none. */
function nextChoices({ taken, numOptions }: ChoiceClock): number[] | null {
  for (let i = taken.length - 1; i >= 0; i -= 1) {
    if (taken[i]! + 1 < numOptions[i]!) return [...taken.slice(0, i), taken[i]! + 1];
  }
  return null;
}
