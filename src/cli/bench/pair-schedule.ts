/**
 * Which runs of a bench come next, until every cell is known well enough or something else ends it. Knows no clock: it
 * is told what has passed.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { Cell, PlannedRun } from './plan.ts';
import { planRepeat } from './plan.ts';
import type { Comparison } from './statistics/paired-comparison.ts';
import { FEWEST_PAIRS, PairedComparison } from './statistics/paired-comparison.ts';

/**
 * What ends a bench: a number of pairs; or intervals of this half-width, or the time that it may take in all. A time
 * that is given is kept, or refused; one that is not (`isBudgetGiven`) lasts for one pair of each cell.
 */
export type Ending =
  | Readonly<{ kind: 'repeats'; repeats: number }>
  | Readonly<{
      kind: 'half-width';
      halfWidth: number;
      budgetMs: number;
      isBudgetGiven: boolean;
      /** The time is a part of one that so many benches share; absent = 1. */
      numBenches?: number;
    }>;

/** The ending of each of `numBenches` that share the time. */
export function dividedEnding(ending: Ending, numBenches: number): Ending {
  return ending.kind === 'repeats' ? ending : { ...ending, budgetMs: ending.budgetMs / numBenches, numBenches };
}

export type ScheduleOptions = Readonly<{ cells: readonly Cell[]; seed: number; ending: Ending }>;

/** How far a bench has got: in runs, or in seconds of the time that it may take. */
export type Progress = Readonly<{ done: number; total: number; unit: 'run' | 'second'; detail: string }>;

export class PairSchedule {
  readonly #options: ScheduleOptions;
  /** Of every cell but `off`. */
  readonly #comparisons: ReadonlyMap<Cell, PairedComparison>;
  /** How long the latest run of a design took, with all that belongs to it. */
  readonly #runMs: Map<string, number> = new Map();
  #groups: (readonly PlannedRun[])[] = [];
  #numRepeats = 0;
  #numRuns = 0;

  constructor(options: ScheduleOptions) {
    this.#options = options;
    const target = options.ending.kind === 'repeats' ? null : options.ending.halfWidth;
    const compared = options.cells.filter(({ design }) => design !== 'off');
    this.#comparisons = new Map(compared.map((cell) => [cell, new PairedComparison(target)]));
  }

  /** A run of `design` took so long; the next one is taken to last as long. */
  took(design: string, ms: number): void {
    this.#runMs.set(design, ms);
  }

  /** After the warm-up: throws BAD_VALUE if the given time does not last for one pair of each cell. */
  checkBudget(elapsedMs: number): void {
    const { ending } = this.#options;
    if (ending.kind === 'repeats' || !ending.isBudgetGiven) return;
    const pairMs = this.#planNext(0).reduce((sum, group) => sum + this.#expectedMs(group), 0);
    if (elapsedMs + pairMs <= ending.budgetMs) return;
    const { numBenches = 1 } = ending;
    const wantedMs = numBenches * (elapsedMs + FEWEST_PAIRS * pairMs);
    const [elapsed, pair, wanted] = [elapsedMs, pairMs, wantedMs].map((ms) => Math.ceil(ms / 1e3));
    const each = numBenches === 1 ? '' : `, for each of ${numBenches} values`;
    const why = `${elapsed} s were start and warm-up, and a pair of each cell takes ${pair} s${each}`;
    const advice = `${wanted} for ${FEWEST_PAIRS} pairs, or compare fewer designs and shares (${why})`;
    throw RoutedExpertsError.of('BAD_VALUE', '--time-budget', (numBenches * ending.budgetMs) / 1e3, advice);
  }

  /** Runs that are compared with each other, in their order; `null`: it is over. */
  next(elapsedMs: number): readonly PlannedRun[] | null {
    if (this.#groups.length === 0) {
      if (this.#isLastRepeat()) return null;
      this.#groups = [...this.#planNext(this.#numRepeats)];
      if (this.#groups.length === 0) return null;
      this.#numRepeats++;
    }
    const { ending } = this.#options;
    const group = this.#groups.shift()!;
    // Without a pair a cell has nothing to report.
    if (this.#numRepeats === 1 || ending.kind === 'repeats') return group;
    if (elapsedMs + this.#expectedMs(group) > ending.budgetMs) return null;
    return group;
  }

  /** The group has run; `rates` in the order of its runs. */
  add(group: readonly PlannedRun[], rates: readonly number[]): void {
    const off = rates[group.findIndex(({ cell }) => cell.design === 'off')]!;
    this.#numRuns += group.length;
    group.forEach(({ cell }, i) => this.#comparisons.get(cell)?.add(rates[i]! / off));
  }

  progress(elapsedMs: number): Progress {
    const { cells, seed, ending } = this.#options;
    const pair = this.#numRepeats === 0 ? '' : `, pair ${this.#numRepeats}`;
    if (ending.kind === 'repeats') {
      const runsPerRepeat = planRepeat({ cells, open: cells, repeat: 0, seed }).flat().length;
      return { done: this.#numRuns, total: ending.repeats * runsPerRepeat, unit: 'run', detail: pair };
    }
    const all = [...this.#comparisons.values()];
    const numSettled = all.filter(({ isSettled }) => isSettled).length;
    const total = Math.floor(ending.budgetMs / 1e3);
    const done = Math.min(Math.floor(elapsedMs / 1e3), total);
    return { done, total, unit: 'second', detail: `${pair}, ${numSettled} of ${all.length} cells settled` };
  }

  /** For each cell, in their order; `null` for `off`. */
  end(): readonly (Comparison | null)[] {
    const { cells, ending } = this.#options;
    const endedBy = ending.kind === 'repeats' ? 'repeats' : 'time budget';
    return cells.map((cell) => this.#comparisons.get(cell)?.end(endedBy) ?? null);
  }

  #isLastRepeat(): boolean {
    const { ending } = this.#options;
    if (ending.kind === 'repeats') return this.#numRepeats === ending.repeats;
    return this.#comparisons.size === 0 && this.#numRepeats === FEWEST_PAIRS;
  }

  #planNext(repeat: number): readonly (readonly PlannedRun[])[] {
    const { cells, seed } = this.#options;
    const open = cells.filter((cell) => this.#comparisons.get(cell)?.isSettled === false);
    return planRepeat({ cells, open, repeat, seed });
  }

  #expectedMs(group: readonly PlannedRun[]): number {
    return group.reduce((sum, { cell }) => sum + (this.#runMs.get(cell.design) ?? 0), 0);
  }
}
