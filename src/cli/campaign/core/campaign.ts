/**
 * The bookkeeping of a campaign. Shards go out in order. Results come back in any order and any number of times, and
 * count in order and once.
 *
 * ```
 * series 0   [0][1][2][3]      a box is a shard, by its index in the whole campaign
 * series 1   [4][5]
 *             └─ the results of a series count from its first shard on, up to the one that ends it
 * ```
 *
 * A series ends early with the shard in which its violations get too many. Which shard that is depends on the results
 * before it and on nothing else, so a campaign stops alike however many workers ran, in whatever order.
 */

import { RoutedExpertsError } from '../../../contract/errors.ts';
import { isOfShare, WHOLE, type Share } from './share.ts';

/** What a campaign is made of. */
export type CampaignPlan<Result> = Readonly<{
  /** The shards of each series, and the violations that it may have: with more it ends. */
  series: readonly Readonly<{ numShards: number; mostViolations: number }>[];
  numViolations: (result: Result) => number;
  /** What two results of one shard must agree in; by default all of them. */
  repeatablePart?: (result: Result) => unknown;
  /** The shards that are this campaign's own; by default all. */
  share?: Share;
}>;

type Series = {
  /** Its own shards, in order. */
  readonly shards: readonly number[];
  readonly mostViolations: number;
  /** Shards whose results count so far. */
  numCounted: number;
  numViolations: number;
  /** Shards behind this many are not needed. */
  end: number;
};

export class Campaign<Result> {
  readonly #series: readonly Series[];
  readonly #places: Map<number, Readonly<{ series: Series; position: number }>> = new Map();
  readonly #results: Map<number, Result> = new Map();
  readonly #numViolations: (result: Result) => number;
  readonly #repeatablePart: (result: Result) => unknown;

  constructor({ series, numViolations, repeatablePart, share = WHOLE }: CampaignPlan<Result>) {
    this.#numViolations = numViolations;
    this.#repeatablePart = repeatablePart ?? ((result) => result);
    let first = 0;
    this.#series = series.map(({ numShards, mostViolations }) => {
      const all = Array.from({ length: numShards }, (_, i) => first + i);
      first += numShards;
      const shards = all.filter((shard) => isOfShare(shard, share));
      const own: Series = { shards, mostViolations, numCounted: 0, numViolations: 0, end: shards.length };
      for (const [position, shard] of shards.entries()) this.#places.set(shard, { series: own, position });
      return own;
    });
  }

  /** The shards that are needed and have no result yet, in order, as things stand when each is asked for. */
  *unfinished(): Generator<number, void, undefined> {
    for (const series of this.#series) {
      for (let position = series.numCounted; position < series.end; position += 1) {
        const shard = series.shards[position]!;
        if (!this.#results.has(shard)) yield shard;
      }
    }
  }

  get isComplete(): boolean {
    return this.#series.every(({ numCounted, end }) => numCounted === end);
  }

  /** Whether the result of a shard counts, as far as is known. */
  isNeeded(shard: number): boolean {
    const place = this.#places.get(shard);
    return place !== undefined && place.position < place.series.end;
  }

  /**
   * Takes the result of a shard in. Returns false for a shard that has one, and for one that is not needed. Throws
   * SHARD_DIFFERS where a shard has two results that are not the same (L10).
   */
  add(shard: number, result: Result): boolean {
    if (!this.isNeeded(shard)) return false;
    const known = this.#results.get(shard);
    if (known !== undefined) {
      const [first, second] = [known, result].map((each) => JSON.stringify(this.#repeatablePart(each)));
      if (first !== second) throw RoutedExpertsError.of('SHARD_DIFFERS', shard);
      return false;
    }
    this.#results.set(shard, result);
    this.#count(this.#places.get(shard)!.series);
    return true;
  }

  /** The results that count, of each series in the order of its shards. The campaign is complete. */
  results(): Result[][] {
    if (!this.isComplete) throw RoutedExpertsError.of('INVARIANT', 'a campaign that is not complete has no results');
    return this.#series.map(({ shards, end }) => shards.slice(0, end).map((shard) => this.#results.get(shard)!));
  }

  #count(series: Series): void {
    while (series.numCounted < series.end) {
      const result = this.#results.get(series.shards[series.numCounted]!);
      if (result === undefined) return;
      series.numCounted += 1;
      series.numViolations += this.#numViolations(result);
      if (series.numViolations > series.mostViolations) series.end = series.numCounted;
    }
  }
}
