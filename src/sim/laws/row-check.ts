/** Compares delivered rows with the ledger's: all there, each once, each right, or missing for a reason (L1–L4, L9). */

import type { ModelConfig } from '../../contract/config.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { rowAt } from '../../capture/routed-rows.ts';
import type { RowArray } from '../../capture/row-shape.ts';
import type { Scenario } from '../scenario.ts';
import type { Judge } from './judge.ts';
import type { Ledger } from './ledger.ts';
import { Flag, type TrackedRequest } from './tracked-request.ts';

type RowChecked = Readonly<{
  scenario: Pick<Scenario, 'model' | 'hasEpochs' | 'readsAtOnce'>;
  ledger: Ledger;
  judge: Judge;
  requests: readonly TrackedRequest[];
  rowsAreSpliced: boolean;
}>;

export class RowCheck {
  readonly #model: ModelConfig;
  readonly #ledger: Ledger;
  readonly #judge: Judge;
  readonly #hasEpochs: boolean;
  readonly #readsAtOnce: boolean;
  readonly #rowsAreSpliced: boolean;
  readonly #requests: readonly TrackedRequest[];
  readonly #unread: Readonly<{ request: TrackedRequest; rows: RoutedRows }>[] = [];

  constructor({ scenario, ledger, judge, requests, rowsAreSpliced }: RowChecked) {
    this.#requests = requests;
    this.#model = scenario.model;
    this.#ledger = ledger;
    this.#judge = judge;
    this.#hasEpochs = scenario.hasEpochs;
    this.#readsAtOnce = scenario.readsAtOnce;
    this.#rowsAreSpliced = rowsAreSpliced;
  }

  /** Takes in the rows of one output: some of them, or all. */
  onRows(request: TrackedRequest, rows: RoutedRows): void {
    const { start, count } = rows;
    if (rows.numLayers !== this.#model.numLayers || rows.topK !== this.#model.topK) {
      this.#judge.wrong('L1', `rows of ${request.name} are ${rows.numLayers}×${rows.topK} ids`);
    }
    if (count < 0 || start < 0) this.#judge.wrong('L1', `${count} rows of ${request.name} from position ${start} on`);
    if (request.rowsFrom < 0) {
      request.rowsFrom = start;
      request.rowsTo = start;
    }
    if (start < request.rowsTo) {
      this.#judge.wrong('L3', `rows of ${request.name} from ${start} on came after those up to ${request.rowsTo}`);
      return;
    }
    const end = Math.min(start + count, request.flags.length);
    for (let p = request.rowsTo; p < start; p += 1) request.flags[p]! |= Flag.missing;
    let at = start;
    for (const [from, to] of rows.missing) {
      if (from < at || to <= from || to > start + count) {
        this.#judge.wrong('L4', `missing range [${from}, ${to}) of ${request.name} is not in order inside the rows`);
        break;
      }
      for (let p = from; p < Math.min(to, end); p += 1) request.flags[p]! |= Flag.missing;
      at = to;
    }
    for (let p = start; p < end; p += 1) if (!request.has(p, Flag.missing)) request.flags[p]! |= Flag.delivered;
    request.rowsTo = start + count;
    if (this.#readsAtOnce) this.#read(request, rows);
    else this.#unread.push({ request, rows });
  }

  /** The request is over, and all its rows were delivered. */
  onEnd(request: TrackedRequest): void {
    const from = request.spec.rowsFrom;
    const to = Math.max(from, request.tokens.length - 1);
    if (request.rowsFrom < 0) {
      request.rowsFrom = from;
      request.rowsTo = from;
    }
    if (request.rowsFrom !== from || request.rowsTo > to) {
      this.#judge.wrong(
        'L1',
        `rows [${request.rowsFrom}, ${request.rowsTo}) of ${request.name} were delivered; due are [${from}, ${to})`,
      );
      return;
    }
    for (let p = from; p < to; p += 1) {
      if (!request.has(p, Flag.delivered)) this.#checkMissing(request, p, p >= request.rowsTo);
    }
  }

  /** Reads the rows that a late consumer has kept: they must be what they were when they were delivered. */
  readAll(): void {
    for (const { request, rows } of this.#unread) this.#read(request, rows);
    this.#unread.length = 0;
  }

  #checkMissing(request: TrackedRequest, position: number, isUnmentioned: boolean): void {
    const { finish } = request;
    const isAborted = finish === 'abort' || finish === 'error';
    const hasArrived = request.has(position, Flag.arrived);
    const isHit = request.has(position, Flag.hit);
    if (isAborted && !hasArrived && !isUnmentioned) return;
    if (this.#rowsAreSpliced && !isUnmentioned && request.has(position, Flag.loaded)) return;
    if (this.#judge.excuses('all')) return;
    if (isHit && !isUnmentioned && this.#judge.excuses('prefix-hit')) return;
    if (isAborted && this.#judge.excuses('aborted')) return;
    if (finish === 'stop' && this.#judge.excuses('stopped')) return;
    if (!request.endedWithBlocks && this.#judge.excuses('ended-without-blocks')) return;
    const how = isHit ? 'came from the prefix cache' : 'was computed by the request itself';
    if (isUnmentioned) {
      this.#judge.wrong(
        'L1',
        `${request.name} ended (${finish}) with rows [${request.rowsFrom}, ${request.rowsTo}), without a word ` +
          `about position ${position}`,
      );
    } else if (hasArrived) {
      this.#judge.wrong('L3', `the row of ${request.name} at position ${position} had reached the engine and is lost`);
    } else
      this.#judge.wrong('L1', `the row of ${request.name} at position ${position} is missing; the position ${how}`);
  }

  #read(request: TrackedRequest, rows: RoutedRows): void {
    const end = Math.min(rows.start + rows.count, request.flags.length);
    for (let p = rows.start; p < end; p += 1) {
      if (request.has(p, Flag.delivered)) this.#compare(request, p, rowAt(rows, p));
    }
  }

  #compare(request: TrackedRequest, position: number, got: RowArray | null): void {
    if (got === null) {
      this.#judge.wrong('L4', `the row of ${request.name} at position ${position} is neither there nor missing`);
      return;
    }
    this.#checkIds(request, position, got);
    if (this.#hasEpochs) {
      const known = request.rowsOfSteps.get(position) ?? [];
      if (known.some(({ row, isForbidden }) => !isForbidden && isEqual(row, got))) return;
      const forbidden = known.find(({ row }) => isEqual(row, got));
      if (forbidden !== undefined) {
        this.#judge.wrong(
          'L9',
          `the row of ${request.name} at position ${position} is of step ${forbidden.stepId}, whose output was ` +
            'thrown away',
        );
        return;
      }
      const other = this.#requests.find((each) => hasSameStart(each, request, position) && hasRow(each, position, got));
      if (other !== undefined) {
        const what =
          `the row of ${request.name} at position ${position} is of a pass of ${other.name} over the ` +
          'same tokens, whose KV it did not read';
        this.#judge.wrong('L9', what);
        return;
      }
      this.#wrongRow(request, position, got, known.map(({ row }) => `[${Array.from(row)}]`).join(' or '));
      return;
    }
    const expected = this.#ledger.rowOf(request, position);
    if (expected === null) {
      this.#judge.wrong('L4', `a row of ${request.name} at position ${position}, which was never computed`);
    } else if (!isEqual(expected, got)) this.#wrongRow(request, position, got, `[${Array.from(expected)}]`);
  }

  /**
   * Finds rows that no router can have chosen, whatever the oracle says: each layer must have K distinct ids of
   * existing experts.
   */
  #checkIds(request: TrackedRequest, position: number, got: RowArray): void {
    const { numLayers, topK, numExperts } = this.#model;
    for (let layer = 0; layer < numLayers; layer += 1) {
      for (let at = layer * topK, end = at + topK; at < end; at += 1) {
        const id = got[at]!;
        let isRight = id >= 0 && id < numExperts;
        for (let before = layer * topK; isRight && before < at; before += 1) isRight = got[before] !== id;
        if (isRight) continue;
        const ids = Array.from(got.subarray(layer * topK, end));
        const what =
          `the row of ${request.name} at position ${position} is no routing in layer ${layer}: ` +
          `[${ids}], ${topK} of ${numExperts} experts`;
        this.#judge.wrong(got.every((each) => each === 0) ? 'L4' : 'L2', what);
        return;
      }
    }
  }

  #wrongRow(request: TrackedRequest, position: number, got: RowArray, expected: string): void {
    const where = `${request.name} at position ${position}`;
    const what = `the row of ${where} is [${Array.from(got)}]; the router chose ${expected}`;
    if (got.every((id) => id === 0)) this.#judge.wrong('L4', what);
    else this.#judge.wrong(this.#isOfAnotherPosition(request, position, got) ? 'L3' : 'L2', what);
  }

  #isOfAnotherPosition(request: TrackedRequest, position: number, got: RowArray): boolean {
    for (let p = 0; p < request.sumX.length; p += 1) {
      if (p === position) continue;
      const row = this.#hasEpochs ? request.rowsOfSteps.get(p)?.[0]?.row : this.#ledger.rowOf(request, p);
      if (row && isEqual(row, got)) return true;
    }
    return false;
  }
}

function hasSameStart(a: TrackedRequest, b: TrackedRequest, position: number): boolean {
  for (let p = 0; p <= position; p += 1) if (a.tokens[p] !== b.tokens[p]) return false;
  return true;
}

function hasRow(request: TrackedRequest, position: number, row: RowArray): boolean {
  return request.rowsOfSteps.get(position)?.some((known) => isEqual(known.row, row)) === true;
}

function isEqual(a: Uint16Array, b: RowArray): boolean {
  for (let i = 0; i < a.length; i += 1) if (a[i] !== b[i]) return false;
  return a.length === b.length;
}
